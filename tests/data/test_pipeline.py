"""From rows to packs: every row accounted for, empty answers, validation part, the step dataloader."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from conftest import ASSETS

from medtune.build import check
from medtune.data.pipeline import build_dataset, step_dataloader
from medtune.data.readers import read_data
from medtune.errors import DataError


def row(i: int, words: int = 6, answer: str | None = None) -> dict[str, str]:
    return {"question": f"Question {i}?", "answer": "twice a day " * words if answer is None else answer}


@pytest.fixture
def rows_file(tmp_path):
    def write(rows):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
        return read_data(str(file))

    return write


def test_an_empty_answer_stops_the_run_and_is_named_by_place_and_count_but_not_by_text(rows_file, tiny_tokenizer):
    rows = [row(0), row(1, answer=""), row(2), row(3, answer=" \n")]
    with pytest.raises(DataError) as raised:
        build_dataset(rows_file(rows), tiny_tokenizer, 128)
    message = str(raised.value)
    assert "rows.jsonl:2" in message
    assert "2 of 4 rows" in message
    assert "drop_empty=True" in message
    assert "Question" not in message


def test_empty_answers_are_left_out_and_counted_when_asked_for(rows_file, tiny_tokenizer):
    rows = [row(0), row(1, answer=""), row(2), row(3, answer=" \n")]
    data = build_dataset(rows_file(rows), tiny_tokenizer, 128, drop_empty=True)
    assert [origin.rpartition(":")[2] for origin in data.samples.origins] == ["1", "3"]
    assert data.report.dropped == {"empty answer": 2}
    assert "left out 2: empty answer" in data.report.lines()


def test_every_row_is_encoded_or_counted_with_its_reason(rows_file, tiny_tokenizer):
    rows = [row(i, words=80 if i % 7 == 3 else 4, answer="" if i % 9 == 1 else None) for i in range(60)]
    options = {"drop_empty": True, "val_ratio": 0.2, "max_dataset_length": 30}
    read = 0
    for part in ("train", "val"):
        report = build_dataset(rows_file(rows), tiny_tokenizer, 64, part=part, **options).report
        assert report.num_rows == 60
        assert report.num_rows == report.encoded.num_rows + report.dropped.total()
        assert report.encoded.num_rows == report.encoded.num_samples + sum(report.encoded.dropped.values())
        assert report.dropped["empty answer"] == 7
        told = "\n".join(report.lines())
        for reason, count in (Counter(report.encoded.dropped) + report.dropped).items():
            assert f"left out {count}: {reason}" in told
        read += report.encoded.num_rows + report.dropped["not drawn (max_dataset_length)"]
    assert read == 60 - 7  # the two parts share no row and miss none


def test_the_report_names_the_places_of_rows_that_are_too_long_and_no_text(rows_file, tiny_tokenizer):
    rows = [row(i, words=80 if i in (2, 5, 6, 8) else 4) for i in range(10)]
    lines = build_dataset(rows_file(rows), tiny_tokenizer, 64).report.lines()
    told = next(line for line in lines if "longer than max_length" in line)
    assert told.startswith("left out 4: ")
    assert [f"rows.jsonl:{n}" in told for n in (3, 6, 7)] == [True] * 3
    assert told.endswith(", ...)")
    assert not any("Question" in line or "twice" in line for line in lines)


def test_nothing_left_to_train_on_says_why(rows_file, tiny_tokenizer):
    with pytest.raises(DataError, match=r"3 rows read, left out: 3 longer than max_length"):
        build_dataset(rows_file([row(i, words=80) for i in range(3)]), tiny_tokenizer, 64)
    with pytest.raises(DataError, match="no rows"):
        build_dataset([], tiny_tokenizer, 64)


def test_a_validation_part_of_no_row_says_what_to_raise(rows_file, tiny_tokenizer):
    with pytest.raises(DataError, match="raise val_ratio"):
        build_dataset(rows_file([row(i) for i in range(4)]), tiny_tokenizer, 64, val_ratio=0.01, part="val")


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 3])
def test_an_impossible_val_ratio_is_found_before_anything_is_read(ratio):
    node = {"type": build_dataset, "dataset": [], "tokenizer": None, "max_length": 64, "val_ratio": ratio}
    assert any("val_ratio" in fault for fault in check({"train_dataset": node}))


def test_packs_hold_whole_samples_up_to_max_length_and_validation_is_not_packed(rows_file, tiny_tokenizer):
    rows = [row(i, words=1 + i % 5) for i in range(40)]
    train = build_dataset(rows_file(rows), tiny_tokenizer, 96, val_ratio=0.25)
    val = build_dataset(rows_file(rows), tiny_tokenizer, 96, val_ratio=0.25, part="val")
    assert len(train) < len(train.samples)
    assert all(sum(train.samples.lengths[i] for i in pack) <= 96 for pack in train.packs)
    assert val.packs == [[i] for i in range(len(val.samples))]
    assert not set(train.samples.origins) & set(val.samples.origins)
    unpacked = build_dataset(rows_file(rows), tiny_tokenizer, 96, pack_to_max_length=False)
    assert unpacked.packs == [[i] for i in range(40)]


def test_a_questions_repeats_never_stand_on_both_sides(rows_file, tiny_tokenizer):
    rows = [row(i % 10) for i in range(40)]
    parts = [build_dataset(rows_file(rows), tiny_tokenizer, 96, val_ratio=0.3, part=p) for p in ("train", "val")]
    asked = [{(int(o.rpartition(":")[2]) - 1) % 10 for o in data.samples.origins} for data in parts]
    assert not asked[0] & asked[1]
    assert "repeated questions kept on one side of the split: 30" in parts[0].report.lines()


def test_without_val_ratio_there_is_no_validation_data_and_nothing_is_read(tiny_tokenizer):
    def rows():
        raise AssertionError("read")
        yield

    assert build_dataset(rows(), tiny_tokenizer, 96, part="val") is None
    assert step_dataloader(None) is None


def test_system_is_for_conversations_without_one_of_their_own(tiny_tokenizer):
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": r, "content": c} for r, c in (("system", "Mine."), ("user", "a"), ("assistant", "b"))]},
    ]
    data = build_dataset(rows, tiny_tokenizer, 96, system="Yours.")
    texts = [tiny_tokenizer.decode(data.samples[i]["input_ids"]) for i in range(2)]
    assert ["Yours." in text for text in texts] == [True, False]
    assert ["Mine." in text for text in texts] == [False, True]


def test_max_dataset_length_draws_by_seed_and_keeps_file_order(tiny_tokenizer):
    def origins(seed: int) -> list[int]:
        data = build_dataset([row(i) for i in range(50)], tiny_tokenizer, 96, max_dataset_length=20, seed=seed)
        return [int("".join(filter(str.isdigit, origin))) for origin in data.samples.origins]

    assert origins(1) == origins(1) == sorted(origins(1))
    assert len(origins(1)) == 20
    assert origins(1) != origins(2)


def test_the_fingerprint_changes_with_ids_mask_and_packing_and_with_nothing_else(tiny_tokenizer):
    rows = [row(i) for i in range(12)]

    def of(rows=rows, **options):
        return build_dataset(rows, tiny_tokenizer, **{"max_length": 96, "seed": 1, **options}).fingerprint()

    assert of() == of()
    others = [of(rows[:-1]), of(seed=2), of(max_length=128), of(system="Be brief."), of(pack_to_max_length=False)]
    assert len({of(), *others}) == 6


def test_the_dataloader_gives_every_sample_once_and_does_not_move_torchs_generator(tiny_tokenizer):
    data = build_dataset(read_data(str(ASSETS / "medication_qa.xlsx")), tiny_tokenizer, 256)
    loader = step_dataloader(data, batch_size=2, accumulative_counts=2, seed=3)
    before = torch.get_rng_state()
    steps = list(loader)
    assert torch.equal(before, torch.get_rng_state())
    assert Counter(o for s in steps for m in s.micro_batches for o in m.origins) == Counter(data.samples.origins)
    assert sum(s.num_tokens for s in steps) == data.report.encoded.num_tokens
    assert sum(s.num_units for s in steps) == data.report.encoded.num_trained_tokens
    assert len(steps) == loader.batch_sampler.steps_per_epoch


@pytest.mark.slow
def test_worker_processes_give_the_same_steps(tiny_tokenizer):
    data = build_dataset([row(i, 1 + i % 4) for i in range(30)], tiny_tokenizer, 96)
    alone, helped = (list(step_dataloader(data, 2, num_workers=n, seed=3)) for n in (0, 2))
    for one, other in zip(alone, helped, strict=True):
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
            assert a.origins == b.origins
            assert torch.equal(a.input_ids, b.input_ids)


# Fingerprints of version 0.1, which encoded in one process: a checkpoint resumes on the same data only. "split" is
# newer: since then a piece begins with the last token of the one before, and no token goes untrained.
EARLIER = {
    "packed": ({}, "3c83b1e5a8c4d036"),
    "split, not packed": ({"overflow": "split", "pack_to_max_length": False}, "fd34d12c618ec0c3"),
    "validation": ({"val_ratio": 0.3, "part": "val"}, "e0b27f519a5d6f90"),
    "training, truncated": ({"val_ratio": 0.3, "overflow": "truncate"}, "f106bb4f75681dcb"),
    "drawn, named template": ({"max_dataset_length": 25, "prompt_template": "qwen_chat"}, "9bf3a391836fb4d2"),
}


@pytest.mark.parametrize("name", EARLIER)
def test_data_is_what_it_was_in_earlier_versions(tiny_tokenizer, name):
    rows = [
        {
            "question": f"Question {i % 40}?" + " <|im_end|>" * (i % 13 == 5),
            "answer": "" if i % 17 == 3 else "twice a day " * (1 + i % 11),
        }
        for i in range(90)
    ]
    settings, fingerprint = EARLIER[name]
    data = build_dataset(rows, tiny_tokenizer, 30, **{"drop_empty": True, "seed": 5, **settings})
    assert data.fingerprint().startswith(fingerprint)


def test_every_epoch_holds_every_sample_once_in_as_many_steps_and_other_packs(tiny_tokenizer):
    data = build_dataset([row(i, 1 + i % 9) for i in range(80)], tiny_tokenizer, 128)
    loader = step_dataloader(data, batch_size=2, seed=3)
    seen = []
    for epoch in range(3):
        loader.batch_sampler.seek(epoch)
        steps = list(loader)
        assert len(steps) == loader.batch_sampler.steps_per_epoch
        assert sorted(o for s in steps for m in s.micro_batches for o in m.origins) == sorted(data.samples.origins)
        assert all(sum(data.samples.lengths[i] for i in pack) <= 128 for pack in data.epoch_packs(epoch))
        seen.append({frozenset(pack) for pack in data.epoch_packs(epoch)})
    assert len(seen[0] & seen[1]) + len(seen[1] & seen[2]) < len(seen[0])
    assert data.epoch_packs(0) == data.packs


def test_grouped_by_length_steps_hold_like_lengths(tiny_tokenizer):
    data = build_dataset([row(i, 1 + i * 7 % 23) for i in range(92)], tiny_tokenizer, 512, pack_to_max_length=False)

    def spread(by_length):
        steps = step_dataloader(data, batch_size=4, seed=3, group_by_length=by_length)
        return sum(
            max(m.cu_seqlens.diff().tolist()) - min(m.cu_seqlens.diff().tolist())
            for s in steps
            for m in s.micro_batches
        )

    assert spread(True) < spread(False) / 4


def test_train_on_says_which_turns_are_trained_and_placeholders_are_filled_or_counted(tiny_tokenizer):
    turns = [("a", "I am <NAME>."), ("b", "Made by <AUTHOR>.")]
    rows = [{"conversation": [{"input": question, "output": answer} for question, answer in turns]}, row(0)]

    def trained(**settings):
        data = build_dataset(rows, tiny_tokenizer, 128, **settings)
        labels = data.samples[data.samples.origins.index("dataset[train]:0")]["labels"]
        return tiny_tokenizer.decode(labels[labels >= 0], skip_special_tokens=True), data.report

    text, report = trained(placeholders={"name": "M"})
    assert text == "I am M.Made by <AUTHOR>."
    assert report.encoded.num_unfilled == 1
    assert any("leave a name open, such as <NAME>: 1" in line for line in report.lines())
    text, report = trained(placeholders={"name": "M", "author": "A"}, train_on="last")
    assert (text, report.encoded.num_unfilled) == ("Made by A.", 0)
    assert trained(train_on="all")[0] == "aI am <NAME>.bMade by <AUTHOR>."


def test_a_row_that_holds_nothing_to_learn_is_counted_by_its_reason(tiny_tokenizer):
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": i > 1}
        for i in range(5)
    ]
    report = build_dataset(rows, tiny_tokenizer, 128, dataset_map_fn="chosen").report
    assert report.num_rows == 5 and report.encoded.num_rows == 3
    assert list(report.dropped.values()) == [2]
