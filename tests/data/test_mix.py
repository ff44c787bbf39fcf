"""Several sources as one: every row as often as its weight says, the same by seed, each by its own map function."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.build import check
from medtune.cli import main
from medtune.data.map_fns import apply_map_fn, resolve_map_fn
from medtune.data.mix import Source, mix_rows, read_sources
from medtune.data.readers import Rows
from medtune.data.records import Row, SkippedRow, to_record
from medtune.errors import ConfigError, DataError, MedtuneError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows(name: str, number: int) -> Rows:
    made = [Row({"question": f"{name} {i}?", "answer": "Yes."}, f"{name}:{i}") for i in range(number)]
    return Rows(lambda: iter(made))


def origins(sources: list[Source], order: str = "concat", seed: int = 0) -> list[str]:
    return [row.origin for row in mix_rows(sources, order, seed)]


def write(name: str, made: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    return name


ALPACA = [{"instruction": f"Ask {i}", "input": "", "output": f"Told {i}"} for i in range(4)]
SHAREGPT = [{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]}]
PAIR = [{"prompt": "Hi", "chosen": "Hello", "rejected": "What?"}]


def test_concat_is_one_source_after_another_in_its_order():
    assert origins([Source(rows("a", 2)), Source(rows("b", 2))]) == ["a:0", "a:1", "b:0", "b:1"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 3.3]), st.none() | st.integers(1, 30)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 5),
)
def test_every_row_is_used_as_often_as_weight_and_cap_say(plan, seed):
    sources = [Source(rows(f"s{i}", n), weight, cap) for i, (n, weight, cap) in enumerate(plan)]
    found = origins(sources, "interleave", seed)
    assert Counter(found) == Counter(origins(sources, "concat", seed))
    counts = Counter(found)
    for i, (n, weight, cap) in enumerate(plan):
        wanted = min(max(round(n * weight), 1), cap or 10**9)
        used = [counts[f"s{i}:{row}"] for row in range(n)]
        assert sum(used) == wanted
        assert max(used) - min(used) <= 1


def test_interleave_keeps_the_order_within_a_source_and_spreads_it():
    found = origins([Source(rows("a", 500)), Source(rows("b", 500))], "interleave")
    for name in "ab":
        numbers = [int(origin[2:]) for origin in found if origin[0] == name]
        assert numbers == sorted(numbers)
    assert 200 < sum(origin[0] == "a" for origin in found[:500]) < 300


def test_the_seed_decides_the_draw_and_the_order():
    sources = [Source(rows("a", 50), 0.5), Source(rows("b", 50), max_rows=20)]
    assert origins(sources, "interleave", 1) == origins(sources, "interleave", 1)
    assert origins(sources, "interleave", 1) != origins(sources, "interleave", 2)
    assert set(origins(sources, "concat", 1)) != set(origins(sources, "concat", 2))


def test_a_mix_may_be_looped_over_again():
    mixed = mix_rows([Source(rows("a", 5), 0.5)], "interleave")
    assert list(mixed) == list(mixed)


def test_sources_of_different_shapes_come_out_as_records_of_one():
    paths = [write("a.jsonl", ALPACA), write("s.jsonl", SHAREGPT)]
    fields = [row.fields for row in read_sources(paths)]
    assert {tuple(f) for f in fields} == {("messages",)}
    records = [to_record(f) for f in fields]
    assert [r.messages[0].content for r in records] == ["Ask 0", "Ask 1", "Ask 2", "Ask 3", "Hi"]
    assert all(r.messages[1].trained for r in records)


def test_preferences_text_tools_and_switches_survive_a_mix():
    tool = {"type": "function", "function": {"name": "dose", "parameters": {}}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "dose", "arguments": "{}"}}]}
    dialogue = {
        "messages": [
            {"role": "user", "content": "Dose?"},
            call,
            {"role": "tool", "content": "5 mg"},
            {"role": "assistant", "content": "Hm.", "loss": False},
            {"role": "user", "content": "So?"},
            {"role": "assistant", "content": "5 mg."},
        ],
        "tools": [tool],
    }
    paths = [write("p.jsonl", PAIR), write("t.jsonl", [{"text": "Aspirin."}]), write("d.jsonl", [dialogue])]
    pair, text, talk = (to_record(row.fields) for row in read_sources(paths))
    assert [m.content for c in pair.conversations() for m in c.messages] == ["Hi", "Hello", "Hi", "What?"]
    assert [(m.role, m.content, m.trained) for m in text.messages] == [("assistant", "Aspirin.", True)]
    assert talk.tools == (tool,)
    assert talk.messages[1].tool_calls == ({"name": "dose", "arguments": {}},)
    assert [m.trained for m in talk.messages if m.role == "assistant"] == [True, False, True]


def test_a_source_brings_its_own_columns_and_map_function():
    Path("t.csv").write_text("q,a\nWhy?,So.\n", encoding="utf-8")
    sources = [
        {"path": "t.csv", "columns": {"input": "q", "output": "a"}},
        {"path": write("s.jsonl", [{"question": "Q", "answer": "A", "context": "C"}]), "dataset_map_fn": "sql"},
    ]
    mixed = [to_record(row.fields) for row in read_sources(sources)]
    assert mixed[0].messages[0].content == "Why?"
    assert mixed[1].messages[0].role == "system"  # the format `sql` brings one


def test_a_row_with_nothing_to_learn_is_left_for_the_reader_to_count():
    from medtune.data.structured import mapped_records

    bad = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}], "label": False}
    rated = write("rated.jsonl", [bad, {**bad, "label": True}])
    mixed = read_sources([{"path": rated, "dataset_map_fn": "chosen"}, write("a.jsonl", ALPACA)], mix="interleave")
    skipped: Counter[str] = Counter()
    _, records = mapped_records(mixed, skipped=skipped)
    assert len(list(records)) == 5
    assert skipped == {"the answer is labelled as a bad one": 1}


def test_a_reason_that_may_be_a_rows_text_is_not_told():
    row = Row({"left_out": "Zhang Wei, 38.5 °C"}, "a:1")
    with pytest.raises(SkippedRow, match="a:1: nothing to learn"):
        apply_map_fn(resolve_map_fn(None, row), row)


def test_one_source_alone_is_read_as_it_is():
    assert [row.fields for row in read_sources(write("a.jsonl", ALPACA))] == ALPACA


@pytest.mark.parametrize(
    ("data_path", "told"),
    [
        ([], "empty list"),
        ([3], "wanted a path, a name or a dict, got a int"),
        ([{"path": "a.jsonl", "wieght": 2}], "no setting 'wieght'. Did you mean 'weight'"),
        ([{"weight": 2}], "has no 'path'"),
        ([{"path": "a.jsonl", "weight": 0}], "weight=0: wanted a number above 0"),
        ([{"path": "a.jsonl", "max_rows": 0}], "max_rows=0: wanted a whole number"),
        ([{"path": "a.jsonl", "dataset_map_fn": "alpacca"}], "unknown dataset_map_fn 'alpacca'. Did you mean 'alpaca"),
        (["b.jsonl"], "no such file or folder. Did you mean 'a.jsonl'"),
    ],
)
def test_a_wrong_list_is_told_by_the_check_of_the_config_and_when_read(data_path, told):
    write("a.jsonl", ALPACA)
    with pytest.raises(MedtuneError, match=told[:30].replace("(", r"\(").replace("?", r"\?")):
        read_sources(data_path)
    assert told in "\n".join(check({"dataset": {"type": read_sources, "data_path": data_path}}))


def test_another_order_is_refused():
    with pytest.raises(ConfigError, match="neither 'concat' nor 'interleave'"):
        read_sources(write("a.jsonl", ALPACA), mix="random")


def test_a_source_without_rows_is_an_error_in_every_order():
    for order in ("concat", "interleave"):
        with pytest.raises(DataError, match="no rows"):
            list(mix_rows([Source(rows("a", 3)), Source(rows("b", 0), name="b")], order))


# ---------------------------------------------------------------- the command and a config


def test_the_command_writes_weights_and_caps(capsys):
    write("a.jsonl", ALPACA)
    write("s.jsonl", SHAREGPT * 10)
    assert main(["data", "mix", "mix.jsonl", "a.jsonl*2", "s.jsonl*0.5<3", "--order", "interleave", "--seed", "3"]) == 0
    lines = Path("mix.jsonl").read_text(encoding="utf-8").splitlines()
    assert capsys.readouterr().out.splitlines()[0] == "mix.jsonl: 11 rows"
    first = Counter(json.loads(line)["messages"][0]["content"] for line in lines)
    assert first == {"Ask 0": 2, "Ask 1": 2, "Ask 2": 2, "Ask 3": 2, "Hi": 3}
    assert (
        main(["data", "mix", "again.jsonl", "a.jsonl*2", "s.jsonl*0.5<3", "--order", "interleave", "--seed", "3"]) == 0
    )
    assert Path("again.jsonl").read_bytes() == Path("mix.jsonl").read_bytes()
    assert main(["data", "mix", "a.jsonl", "a.jsonl", "-f"]) == 2


def test_a_config_trains_on_a_list_of_sources(tiny_tokenizer):
    from medtune.data.pipeline import build_dataset

    sources = [write("a.jsonl", ALPACA), {"path": write("s.jsonl", SHAREGPT), "weight": 3}]
    data = build_dataset(read_sources(sources, mix="interleave"), tiny_tokenizer, 256, data_cache=False)
    assert data is not None
    assert data.report.num_rows == 7
    assert sorted(data.samples.origins) == sorted([*(f"a.jsonl:{i}" for i in range(1, 5)), *["s.jsonl:1"] * 3])
