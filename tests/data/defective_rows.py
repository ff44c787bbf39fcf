"""Data files of which one row is defective: its types, its dialogue, or what its text holds."""

from __future__ import annotations

from typing import Any

from defective_files import BY_CHECK, CANARY, Defective, defect, rows, save, with_messages, with_row

PAIRS = "not trained here: supervised training refuses preferences whatever they hold"

# Rows: types


@defect()
def number_for_text(draw, folder):
    return with_row(draw, folder, lambda row: {**row, draw.choice(("question", "answer")): draw.choice((5, 2.5, True))})


@defect()
def list_for_text(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "answer": draw.choice(([CANARY], [[CANARY]], [1, 2], [[[]]]))})


@defect()
def object_for_text(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "question": {"text": CANARY}})


@defect()
def row_that_is_no_object(draw, folder):
    return with_row(draw, folder, lambda row: draw.choice((5, None, True, [CANARY], 1.5)))


@defect()
def key_that_is_missing(draw, folder):
    gone = draw.choice(("question", "answer"))
    return with_row(draw, folder, lambda row: {key: value for key, value in row.items() if key != gone})


@defect()
def row_of_no_format(draw, folder):
    return with_row(draw, folder, lambda row: {"left": CANARY, "right": CANARY})


@defect()
def empty_answer(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "answer": draw.choice(("", " ", "\n\t", None))})


@defect("training and conversion take a row without a question", convert=0, train=0)
def empty_question(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "question": draw.choice(("", " ", "\n", None))})


# Rows: dialogues


@defect()
def no_answer_in_the_dialogue(draw, folder):
    return with_messages(draw, folder, lambda said: draw.choice((said[:1], said[:1] * 3)))


@defect()
def no_messages(draw, folder):
    return with_messages(draw, folder, lambda said: draw.choice(([], None, "", {})))


@defect()
def roles_out_of_order(draw, folder):
    system = {"role": "system", "content": CANARY}
    return with_messages(
        draw, folder, lambda said: draw.choice((said + said[1:], [*said, system], [system, system, *said]))
    )


@defect()
def unknown_role(draw, folder):
    role = draw.choice(("doctor", "", None, 5, "User ", f"{CANARY} the patient"))
    return with_messages(draw, folder, lambda said: [{**said[0], "role": role}, *said[1:]])


@defect()
def turn_that_is_no_object(draw, folder):
    return with_messages(draw, folder, lambda said: [said[0], draw.choice((CANARY, 5, [CANARY], None, [said[1]]))])


@defect()
def turn_without_content(draw, folder):
    return with_messages(draw, folder, lambda said: [said[0], {"role": "assistant", "text": CANARY}])


@defect()
def content_that_is_no_text(draw, folder):
    content = draw.choice((5, {"a": CANARY}, [5], [[CANARY]], True))
    return with_messages(draw, folder, lambda said: [said[0], {**said[1], "content": content}])


@defect()
def broken_tool_call(draw, folder):
    call = draw.choice(({"name": ""}, {"arguments": "{}"}, {"name": "f", "arguments": f"{{{CANARY}"}, CANARY, 5))
    return with_messages(draw, folder, lambda said: [said[0], {"role": "assistant", "tool_calls": [call]}])


@defect("a pair of the same answers can be converted; training leaves it out and counts it", convert=0, train=None)
def answers_that_are_the_same(draw, folder):
    values, bad = rows(draw)
    shaped = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "No."} for row in values]
    shaped[bad]["rejected"] = shaped[bad]["chosen"]
    return Defective(*save(draw, folder, shaped, bad), "preference")


@defect(PAIRS, train=None)
def pair_without_one_answer(draw, folder):
    values, bad = rows(draw)
    shaped = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "No."} for row in values]
    del shaped[bad][draw.choice(("chosen", "rejected"))]
    return Defective(*save(draw, folder, shaped, bad), "preference")


@defect(PAIRS, train=None)
def label_that_is_no_label(draw, folder):
    values, bad = rows(draw)
    shaped: list[dict[str, Any]] = [{"prompt": r["question"], "completion": r["answer"], "label": True} for r in values]
    shaped[bad]["label"] = draw.choice(("maybe", 7, None, [True], CANARY))
    return Defective(*save(draw, folder, shaped, bad), "kto")


# Rows: what the text holds


@defect(BY_CHECK, convert=0, train=0)
def control_character(draw, folder):
    char = draw.choice("\x00\x01\x07\x08\x1b\x7f\x9f")
    return with_row(draw, folder, lambda row: {**row, "answer": f"Rest{char} {CANARY}"})


@defect(BY_CHECK, convert=0, train=0)
def mojibake(draw, folder):
    wrong = draw.choice(
        ("体温升高".encode().decode("latin-1"), "38 â€“ 39 Â°C Â± â€œfeverâ€\x9d", "锟斤拷锟斤拷", "ï¿½ï¿½")
    )
    return with_row(draw, folder, lambda row: {**row, "answer": f"{CANARY} {wrong}"})


@defect(BY_CHECK, convert=0, train=0)
def replacement_character(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "answer": f"Rest\ufffd {CANARY}"})


@defect(BY_CHECK, convert=0, train=0)
def open_placeholder(draw, folder):
    word = draw.choice(("<NAME>", "<AUTHOR>", "{{name}}", "{{ author }}"))
    return with_row(draw, folder, lambda row: {**row, "answer": f"I am {word}, {CANARY}"})


@defect("training leaves an over-long row out and counts it", convert=0, train=0)
def huge_cell(draw, folder):
    return with_row(draw, folder, lambda row: {**row, "answer": f"{CANARY} " * draw.randint(200_000, 400_000)})
