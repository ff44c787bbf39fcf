"""Rows of any content: a record, or a fault of one line that quotes nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data.detection import TESTS
from medtune.data.map_fns import DATASET_FORMATS, FORMATS, apply_map_fn, resolve_map_fn
from medtune.data.placeholders import fill_placeholders, unfilled_placeholders
from medtune.data.records import Row, to_record
from medtune.data.structured import has_empty_answer
from medtune.errors import DataError

KEYS = sorted(
    {key for _, keys in FORMATS.values() for key in keys}
    | {
        "role",
        "from",
        "content",
        "value",
        "tool_calls",
        "function_call",
        "name",
        "arguments",
        "weight",
        "loss",
        "tools",
    }
    | {"label", "kto_tag", "chat", "turn_1", "Human", "MOSS", "Commands", "history", "cop", "key", "exp", "system"}
    | {"dialogue-content", "completion", "response", "input_zh", "final_decision", "function", "reasoning"}
)
SECRET = "Mrs Secret, 3 Low Road"
ROLES = st.sampled_from(["user", "assistant", "human", "gpt", "system", "tool", "function_call", "observation"])
LEAVES = (
    st.sampled_from([SECRET, f"### Human: {SECRET}", f"<user>: {SECRET} <bot>:", f'{{"{SECRET}": 1}}', "", "None", "A"])
    | st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.floats()
    | ROLES
)
TURNS = st.lists(st.fixed_dictionaries({"role": ROLES, "content": LEAVES}), max_size=4)
VALUES = st.recursive(
    LEAVES | TURNS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=6) | VALUES


@st.composite
def rows(draw):
    """Fields that often have all the keys of one format."""
    fields = draw(FIELDS)
    if isinstance(fields, dict):
        wanted = draw(st.sampled_from([keys for _, keys in FORMATS.values()]))
        fields = {**fields, **{key: draw(VALUES) for key in wanted}}
    return Row(fields, "a.jsonl:7")


def check(map_fn, row):
    try:
        record = apply_map_fn(map_fn or resolve_map_fn(None, row), row)
    except DataError as fault:
        assert "Secret" not in str(fault), fault
        assert str(fault).startswith("a.jsonl:7: ")
        assert "\n" not in str(fault)
        return
    assert to_record(record) == record
    has_empty_answer(record)
    unfilled_placeholders(fill_placeholders(record, {"name": "x"}))


@settings(max_examples=150, deadline=None)
@given(rows())
def test_detection_gives_a_record_or_one_line(row):
    check(None, row)


@settings(max_examples=150, deadline=None)
@given(rows(), st.sampled_from(sorted(DATASET_FORMATS)))
def test_a_named_format_gives_a_record_or_one_line(row, name):
    check(DATASET_FORMATS[name], row)


def test_every_test_of_detection_belongs_to_a_format():
    assert set(TESTS) <= set(FORMATS)
