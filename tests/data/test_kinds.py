"""Pairs and labelled answers on their way from rows to micro-batches."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medtune.build import check
from medtune.data.collate import flatten
from medtune.data.kinds import mismatched_partners
from medtune.data.pipeline import build_dataset, step_dataloader
from medtune.data.templates import PROMPT_TEMPLATE
from medtune.errors import DataError

WORDS = "aspirin fever dose pain 布洛芬 每日 kidney 头痛 tablet never with wine".split()  # noqa: SIM905


def text(rng, low, high):
    return " ".join(rng.choice(WORDS, rng.integers(low, high))) + "."


def pair_rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        {
            "prompt": f"Case {i}? {text(rng, 1, 6)}",
            "chosen": "A " + text(rng, 1, 20),
            "rejected": "B " + text(rng, 1, 20),
        }
        for i in range(count)
    ]


def label_rows(count):
    return [
        {"prompt": r["prompt"], "completion": r["chosen"], "label": i % 3 > 0} for i, r in enumerate(pair_rows(count))
    ]


def pairs_of(rows, tokenizer, max_length=128, **settings):
    return build_dataset(rows, tokenizer, max_length, kind="pairs", **settings)


def split_ids(sample):
    """Ids of the prompt, and of the answer."""
    start = int((sample["labels"] >= 0).argmax())
    return sample["input_ids"][:start].tolist(), sample["input_ids"][start:].tolist()


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Is aspirin an NSAID?"},
]


@pytest.mark.parametrize("template", [None, *sorted(PROMPT_TEMPLATE)])
def test_both_answers_stand_behind_the_same_ids_and_are_trained_alone(template, tiny_tokenizer):
    prompt = TALK if template is None or PROMPT_TEMPLATE[template].system else TALK[1:]
    row = {"prompt": prompt, "chosen": "Yes.\n", "rejected": " It is <think> a vitamin."}
    data = pairs_of([row], tiny_tokenizer, 512, prompt_template=template)
    (asked, better), (again, worse) = split_ids(data.samples[0]), split_ids(data.samples[1])
    assert asked == again and len(asked) > 10 and better != worse
    said = [tiny_tokenizer.decode(ids) for ids in (better, worse)]
    assert "Yes." in said[0] and "vitamin" in said[1] and not any("aspirin" in x or "Hello" in x for x in said)
    one = [{"messages": [*prompt, {"role": "assistant", "content": row["chosen"]}]}]
    alone = build_dataset(one, tiny_tokenizer, 512, train_on="last", prompt_template=template).samples
    assert alone[len(alone) - 1]["labels"].tolist() == data.samples[0]["labels"].tolist()


def test_system_text_and_placeholders_reach_both_answers(tiny_tokenizer):
    row = {"prompt": "Who are you?", "chosen": "I am <NAME>.", "rejected": "I am nobody, not <NAME>."}
    data = pairs_of([row], tiny_tokenizer, system="Be kind.", placeholders={"name": "MedTune"})
    for i in (0, 1):
        said = tiny_tokenizer.decode(data.samples[i]["input_ids"])
        assert "Be kind." in said and "MedTune" in said and "<NAME>" not in said


def test_a_prompt_of_a_record_is_never_trained_on(tiny_tokenizer):
    row = {"chosen": [*TALK, {"role": "assistant", "content": "Yes."}],
           "rejected": [*TALK, {"role": "assistant", "content": "No."}]}  # fmt: skip
    data = pairs_of([row], tiny_tokenizer)
    assert [tiny_tokenizer.decode(split_ids(data.samples[i])[1])[:3] for i in (0, 1)] == ["Yes", "No."]


def test_a_pair_of_equal_answers_is_left_out_and_counted(tiny_tokenizer):
    rows = pair_rows(5)
    rows[2]["rejected"] = rows[2]["chosen"]
    report = pairs_of(rows, tiny_tokenizer).report
    assert report.dropped == {"both answers are the same": 1} and report.encoded.num_samples == 8


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("nothing", ["", "  \n", None])
def test_a_pair_with_an_empty_side_is_a_fault_unless_it_is_to_be_dropped(side, nothing, tiny_tokenizer):
    rows = pair_rows(4)
    rows[1][side] = nothing
    with pytest.raises(DataError, match=r":1: the answer is empty \(1 of 4 rows\)"):
        pairs_of(rows, tiny_tokenizer)
    assert pairs_of(rows, tiny_tokenizer, drop_empty=True).report.dropped == {"empty answer": 1}


def test_a_pair_without_a_side_is_a_fault_with_its_place(tiny_tokenizer):
    rows = pair_rows(4)
    del rows[2]["rejected"]
    with pytest.raises(DataError, match=":2: "):
        pairs_of(rows, tiny_tokenizer)


@pytest.mark.parametrize("side", ["chosen", "rejected", "prompt"])
def test_a_pair_that_is_too_long_is_dropped_or_cut_as_a_whole(side, tiny_tokenizer):
    rows = pair_rows(6)
    rows[3][side] = "word " * 140
    data = pairs_of(rows, tiny_tokenizer, 100)
    assert data.report.dropped == {"longer than max_length": 1}
    assert data.report.encoded.dropped_origins == {"longer than max_length": ["dataset[train]:3"]}
    assert data.samples.origins == [f"dataset[train]:{i}" for i in (0, 1, 2, 4, 5) for _ in range(2)]
    cut = pairs_of(rows, tiny_tokenizer, 100, overflow="truncate")
    if side == "prompt":  # nothing of the answers is left
        assert cut.report.dropped == {"no trained token": 1} and len(cut.samples) == 10
    else:
        assert len(cut.samples) == 12 and cut.samples.lengths.max() == 100 and cut.report.encoded.num_truncated == 1
    with pytest.raises(DataError, match=r":3: \d+ tokens, and max_length is 100"):
        pairs_of(rows, tiny_tokenizer, 100, overflow="error")


@pytest.mark.parametrize("pack", [True, False])
def test_a_pair_stays_together_in_every_epoch(pack, tiny_tokenizer):
    data = pairs_of(pair_rows(60), tiny_tokenizer, 96, pack_to_max_length=pack)
    epochs = [data.epoch_packs(epoch) for epoch in range(3)]
    for packs in epochs:
        flat = [i for pack in packs for i in pack]
        assert sorted(flat) == list(range(120))
        assert all(
            chosen % 2 == 0 and rejected == chosen + 1 for chosen, rejected in zip(flat[::2], flat[1::2], strict=True)
        )
    if pack:
        assert epochs[0] != epochs[1] and len(epochs[0]) < 40
        assert all(data.samples.lengths[pack].sum() <= 192 for packs in epochs for pack in packs)
    for batch in step_dataloader(data, 2, 2, group_by_length=not pack):
        for micro in batch.micro_batches:
            answers = [tiny_tokenizer.decode(micro.targets[i].item()) for i in first_targets(micro)]
            assert answers == ["A", "B"] * (len(answers) // 2)
            assert micro.origins[0::2] == micro.origins[1::2]


def first_targets(micro):
    of = np.searchsorted(micro.cu_seqlens[1:].numpy(), micro.predict_at.numpy(), side="right")
    return np.flatnonzero(np.diff(of, prepend=-1))


def test_pairs_are_split_into_training_and_validation_by_question(tiny_tokenizer):
    rows = [dict(row, prompt=f"Case {i % 10}?") for i, row in enumerate(pair_rows(40))]
    train, val = (pairs_of(rows, tiny_tokenizer, val_ratio=0.3, part=part) for part in ("train", "val"))
    sides = [{tuple(split_ids(data.samples[i])[0]) for i in range(len(data.samples))} for data in (train, val)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 10
    assert val.packs == [[i, i + 1] for i in range(0, len(val.samples), 2)]


def test_many_rows_are_prepared_by_processes_as_in_memory_and_kept_by_kind(tmp_path, tiny_tokenizer, monkeypatch):
    from medtune.data import prepare
    from medtune.data.readers import read_data

    monkeypatch.setattr(prepare, "SMALL", 10)
    monkeypatch.setattr(prepare, "ROWS_PER_SHARD", 7)
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pair_rows(40)), encoding="utf-8")
    kept = pairs_of(read_data(str(file)), tiny_tokenizer, num_proc=2)
    assert kept.folder is not None
    assert kept.fingerprint() == pairs_of(pair_rows(40), tiny_tokenizer, data_cache=False).fingerprint()
    chosen = build_dataset(read_data(str(file)), tiny_tokenizer, 128, dataset_map_fn="chosen")
    assert chosen.folder != kept.folder and chosen.report.encoded.num_samples == 40


# ---------------------------------------------------------------- labelled answers


def test_a_labelled_answer_comes_with_its_prompt_and_the_answer_to_another(tiny_tokenizer):
    rows = label_rows(20)
    data = build_dataset(rows, tiny_tokenizer, 128, kind="labels")
    seen = []
    for batch in step_dataloader(data, 2, 2, seed=3):
        assert batch.num_samples == sum(len(micro.good) for micro in batch.micro_batches)
        for micro in batch.micro_batches:
            for i, origin in enumerate(micro.origins):
                row = rows[int(origin.rpartition(":")[2])]
                seen.append(origin)
                assert bool(micro.good[i]) == row["label"]
                own, other = (spoken(m, i, tiny_tokenizer) for m in (micro, micro.mismatched))
                assert row["completion"] in own[1] and row["prompt"] in own[0] and other[0] == own[0]
                assert other[1] != own[1] and any(other[1] == a for a in all_answers(data, tiny_tokenizer))
    assert len(seen) == len(set(seen)) == 20


def spoken(micro, i, tokenizer):
    """Prompt and answer of a sample of a micro-batch, as text."""
    begin, end = micro.cu_seqlens[i], micro.cu_seqlens[i + 1]
    start = micro.predict_at[(micro.predict_at >= begin) & (micro.predict_at < end)][0] + 1
    ids = micro.input_ids[0]
    return tokenizer.decode(ids[begin:start]), tokenizer.decode(ids[start:end])


def all_answers(data, tokenizer):
    return [tokenizer.decode(split_ids(data.samples[i])[1]) for i in range(len(data.samples))]


def test_the_label_is_of_the_last_answer_alone_and_part_of_the_datas_fingerprint(tiny_tokenizer):
    talk = [
        {"messages": [*TALK, {"role": "assistant", "content": answer}], "label": True} for answer in ("Yes.", "No.")
    ]
    data = build_dataset(talk, tiny_tokenizer, 128, kind="labels")
    assert [a[:3] for a in all_answers(data, tiny_tokenizer)] == ["Yes", "No."]
    flipped = build_dataset([talk[0], {**talk[1], "label": False}], tiny_tokenizer, 128, kind="labels")
    assert data.fingerprint() != flipped.fingerprint()


def test_a_mismatched_answer_is_cut_where_the_sample_would_be_too_long(tiny_tokenizer):
    rows = label_rows(12)
    rows[0]["prompt"] = "word " * 50
    data = build_dataset(rows, tiny_tokenizer, 80, kind="labels")
    micros = [micro for batch in step_dataloader(data, 12) for micro in batch.micro_batches]
    assert max(micro.mismatched.max_seqlen for micro in micros) <= 80


@pytest.mark.parametrize("counts", [[1, 1], [3, 2, 1], [5, 1, 1, 1, 1, 1], [1] * 30, [4, 4, 4]])
def test_partners_are_each_anothers_and_answer_another_question(counts):
    questions = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)[:, None]
    for seed in range(5):
        partners = mismatched_partners(questions, seed)
        assert sorted(partners) == list(range(len(questions)))
        assert (questions[partners] != questions).all()
        assert (mismatched_partners(questions, seed) == partners).all()
    assert len({tuple(mismatched_partners(questions, seed)) for seed in range(20)}) > (len(questions) > 2)


def test_partners_differ_from_their_prompt_as_far_as_they_can():
    questions = np.array([[0]] * 5 + [[1]], np.uint8)
    assert (mismatched_partners(questions, 0) != np.arange(6)).all()
    with pytest.raises(DataError, match="2 rows or more"):
        mismatched_partners(questions[:1], 0)


# ---------------------------------------------------------------- the wrong kind


@pytest.mark.parametrize(
    ("kind", "row", "told"),
    [
        ("answers", {"prompt": "Hi", "chosen": "Hello", "rejected": "?"}, "dataset_map_fn='chosen'"),
        ("answers", {"prompt": "Hi", "completion": "?", "label": False}, "dataset_map_fn='chosen'"),
        ("pairs", {"question": "Hi", "answer": "Hello"}, "one answer where a chosen and a rejected one are wanted"),
        ("pairs", {"prompt": "Hi", "completion": "?", "label": False}, "which KTO trains on"),
        ("labels", {"prompt": "Hi", "chosen": "Hello", "rejected": "?"}, "which DPO trains on"),
        ("labels", {"question": "Hi", "answer": "Hello"}, "labelled true or false is wanted"),
    ],
)
def test_rows_of_another_kind_are_refused_with_their_place_and_what_to_do(kind, row, told, tiny_tokenizer):
    with pytest.raises(DataError, match=":0: ") as raised:
        build_dataset([row, row], tiny_tokenizer, 64, kind=kind)
    assert told in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "pairs", "train_on": "all"}, "train_on='all'"),
        ({"kind": "labels", "overflow": "split"}, "cannot be split"),
        ({"kind": "pair"}, "Did you mean 'pairs'"),
    ],
)
def test_settings_that_mean_nothing_for_preferences_are_refused(settings, told):
    (fault,) = check({"data": {"type": build_dataset, "dataset": [], "tokenizer": None, "max_length": 64, **settings}})
    assert told in fault


def test_micro_batches_of_other_stages_have_no_labels(tiny_tokenizer):
    micro = flatten([pairs_of(pair_rows(1), tiny_tokenizer).samples[0]])
    assert micro.good is None and micro.to("cpu").mismatched is None
