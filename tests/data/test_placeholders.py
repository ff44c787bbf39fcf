"""Placeholders of self-cognition sets: filled everywhere in a record, or told."""

from __future__ import annotations

import doctest

import pytest

from medtune.data import placeholders
from medtune.data.placeholders import check_placeholders, fill_placeholders, unfilled_placeholders
from medtune.data.records import Conversation, Message, Preference
from medtune.errors import ConfigError

VALUES = {"name": "MedTune", "author": "Ward 3"}


def test_doctests_hold():
    assert doctest.testmod(placeholders).failed == 0


def test_both_forms_are_filled_in_every_message_and_nothing_else_changes():
    told = Conversation(
        (
            Message("system", "You are <NAME>."),
            Message("user", "Are you {{name}}, {{ name }} or <Name>?"),
            Message("assistant", "By {{author}}.", False, ({"name": "<NAME>", "arguments": {}},), "I am <NAME>."),
        ),
        "a:1",
        label=True,
    )
    filled = fill_placeholders(told, VALUES)
    assert [m.content for m in filled.messages] == [
        "You are MedTune.",
        "Are you MedTune, {{ name }} or <Name>?",
        "By Ward 3.",
    ]
    assert filled.messages[2].reasoning == "I am MedTune."
    assert (filled.origin, filled.label, filled.messages[2].tool_calls) == ("a:1", True, told.messages[2].tool_calls)


def test_pairs_are_filled_in_all_three_parts():
    part = (Message("assistant", "<NAME>"),)
    filled = fill_placeholders(Preference(part, part, part), VALUES)
    assert [m[0].content for m in (filled.prompt, filled.chosen, filled.rejected)] == ["MedTune"] * 3


def test_a_filled_text_is_not_filled_again():
    told = Conversation((Message("assistant", "<NAME>"),))
    assert fill_placeholders(told, {"name": "<AUTHOR>", "author": "x"}).messages[0].content == "<AUTHOR>"


def test_without_values_a_record_stays_what_it_is():
    told = Conversation((Message("assistant", "<NAME>"),))
    assert fill_placeholders(told, {}) is told


def test_open_places_are_told_once_and_other_angle_brackets_are_not():
    told = Conversation(
        (Message("user", "<NAME> <NAME> <MASK> <br> {{x}}"), Message("assistant", "{{author}} {{clinic}}"))
    )
    assert unfilled_placeholders(told) == ("<NAME>", "{{author}}")
    assert unfilled_placeholders(told, {"clinic": "C"}) == ("<NAME>", "{{author}}", "{{clinic}}")
    assert unfilled_placeholders(fill_placeholders(told, {"name": "M"})) == ("{{author}}",)


@pytest.mark.parametrize("values", [["name"], {"my name": "x"}, {"name": 7}, {"name": " "}, {7: "x"}])
def test_a_wrong_setting_is_named(values):
    with pytest.raises(ConfigError, match=r"placeholders: .*dict\(name="):
        check_placeholders(values)
    check_placeholders(VALUES)


@pytest.mark.parametrize(
    ("folder", "file", "num_open"), [("caregpt", "self_cognition.json", 74), ("llama-factory", "identity.json", 85)]
)
def test_the_published_sets_are_filled_whole(shared, folder, file, num_open):
    from medtune.data.structured import read_conversations

    conversations = read_conversations(shared / "data" / folder / file)
    assert sum(bool(unfilled_placeholders(c)) for c in conversations) == num_open
    assert not any(unfilled_placeholders(fill_placeholders(c, VALUES)) for c in conversations)
