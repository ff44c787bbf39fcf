"""Map functions of multiple-choice sets: the question lists the options, the answer is the letter and its text.

Import them from `medtune.data.map_fns`, which says what a map function is. Chinese questions are asked in Chinese. A
row without an answer, as in the test parts of the benchmarks, gets an empty one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from medtune.data.turns import Fields, join, one_turn
from medtune.errors import DataError

LETTERS = "ABCDEFGHIJ"
FROM_ZERO = (0, -1)
"""Values of `cop` that only a set which counts from 0 has; -1 is an answer that is not published."""
HAN = re.compile("[\u4e00-\u9fff]")


class Words(NamedTuple):
    """What is said around a question in one language."""

    one: str
    several: str
    explanation: str


WORDS = {
    "zh": Words("请选出正确的选项。", "请选出所有正确的选项。", "解析："),
    "en": Words("Choose the correct option.", "Choose all correct options.", "Explanation: "),
}


def choice_turn(
    question: Any, options: Mapping[str, Any], letters: Any, explanation: Any = None, several: bool = False
) -> dict[str, Any]:
    """One question with its options, and its answer.

    Args:
        question: its text.
        options: letter -> text; empty ones are left out.
        letters: of the right options, "B" or "ABD" or "A,C"; nothing where the answer is not published.
        explanation: stands after the answer.
        several: several options may be right.

    Raises:
        DataError: a letter that no option has.
    """
    held = {letter: str(text).strip() for letter, text in options.items() if text not in (None, "")}
    right = [char for char in str(letters or "").upper() if char.isalnum()]
    if not set(right) <= set(held):
        raise DataError("the answer is none of the options' letters. Fix the row, or map it by a function of its own.")
    words = WORDS["zh" if HAN.search(str(question)) else "en"]
    ask = words.several if several or len(right) > 1 else words.one
    listed = "\n".join(f"{letter}. {text}" for letter, text in held.items())
    answer = "\n".join(f"{letter}. {held[letter]}" for letter in right)
    if right and explanation:
        answer = f"{answer}\n\n{words.explanation}{str(explanation).strip()}"
    return one_turn(join(question, listed, ask), answer)


def ceval_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "A", "B", "C", "D", "answer"?, "explanation"?}: C-Eval and CMMLU, whose headers are capitals.

    >>> ceval_map_fn({"Question": "右心房有", "A": "肉柱", "B": "室上嵴", "C": "乳头肌", "D": "梳状肌", "Answer": "D"})
    {'conversation': [{'input': '右心房有\\nA. 肉柱\\n...\\n请选出正确的选项。', 'output': 'D. 梳状肌'}]}
    """
    question = row["Question"] if "Question" in row else row["question"]
    answer = row.get("Answer", row.get("answer"))
    options = {letter: row[letter] for letter in "ABCD"} | {letter: row.get(letter) for letter in "EF"}
    return choice_turn(question, options, answer, row.get("explanation"))


def choices_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "choices": [text, ...], "answer": index from 0}: MMLU as the hub has it.

    >>> choices_map_fn({"question": "Which is an NSAID?", "choices": ["Aspirin", "Insulin"], "answer": 0})
    {'conversation': [{'input': 'Which is an NSAID?\\nA. Aspirin\\nB. Insulin\\n...', 'output': 'A. Aspirin'}]}
    """
    options = dict(zip(LETTERS, row["choices"], strict=False))
    return choice_turn(row["question"], options, _letter(row["answer"], 0, len(options)))


def cmb_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "option": {"A": text, ...}, "answer": letters, "question_type"?, "explanation"?}: CMB.

    >>> options = {"A": "阿司匹林", "B": "布洛芬", "C": "胰岛素"}
    >>> cmb_map_fn({"question": "属于非甾体抗炎药的是", "option": options, "answer": "AB"})
    {'conversation': [{'input': '...请选出所有正确的选项。', 'output': 'A. 阿司匹林\\nB. 布洛芬'}]}
    """
    several = "多" in str(row.get("question_type") or "")
    return choice_turn(row["question"], row["option"], row["answer"], row.get("explanation"), several)


def cmb_clin_map_fn(row: Fields) -> dict[str, Any]:
    """{"title"?, "description", "QA_pairs": [{"question", "answer"}, ...]}: CMB's cases; the case is asked first.

    >>> cmb_clin_map_fn({"description": "男，49岁。", "QA_pairs": [{"question": "诊断？", "answer": "疝。"}]})
    {'conversation': [{'input': '男，49岁。\\n诊断？', 'output': '疝。'}]}
    """
    case = row["description"]
    turns = [{"input": pair["question"], "output": pair["answer"]} for pair in row["QA_pairs"]]
    if turns:
        turns[0]["input"] = join(case, turns[0]["input"])
    return {"conversation": turns}


def medmcqa_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "opa", "opb", "opc", "opd", "cop"?: 1 to 4, "exp"?}: MedMCQA as its authors have it.

    >>> medmcqa_map_fn({"question": "Which is an NSAID?", "opa": "Aspirin", "opb": "Insulin", "opc": "Heparin",
    ...                 "opd": "Iron", "cop": 1, "exp": "It inhibits COX."})
    {'conversation': [{'input': '...', 'output': 'A. Aspirin\\n\\nExplanation: It inhibits COX.'}]}
    """
    return _medmcqa(row, counts_from=1)


def medmcqa_from_zero_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "opa", "opb", "opc", "opd", "cop"?: 0 to 3, "exp"?}: MedMCQA as the hub has it; -1 is no answer.

    >>> medmcqa_from_zero_map_fn({"question": "Which is an NSAID?", "opa": "Aspirin", "opb": "Insulin",
    ...                           "opc": "Heparin", "opd": "Iron", "cop": 0})
    {'conversation': [{'input': '...', 'output': 'A. Aspirin'}]}
    """
    return _medmcqa(row, counts_from=0)


def medqa_us_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "options": {"A": text, ...}, "answer"?: text, "answer_idx": letter}: MedQA (USMLE).

    >>> medqa_us_map_fn({"question": "Which is an NSAID?", "answer": "Aspirin", "answer_idx": "A",
    ...                  "options": {"A": "Aspirin", "B": "Insulin"}})
    {'conversation': [{'input': '...', 'output': 'A. Aspirin'}]}
    """
    options = row["options"]
    if isinstance(options, list):  # parquet has [{"key", "value"}]
        options = {option["key"]: option["value"] for option in options}
    return choice_turn(row["question"], options, row["answer_idx"])


def mmlu_map_fn(row: Fields) -> dict[str, Any]:
    """{"A": question, "B", "C", "D", "E": options, "F": letter A to D}: MMLU's tables, which have no header row.

    >>> mmlu_map_fn({"A": "Which is an NSAID?", "B": "Aspirin", "C": "Insulin", "D": "Iron", "E": "Gold", "F": "A"})
    {'conversation': [{'input': 'Which is an NSAID?\\nA. Aspirin\\n...', 'output': 'A. Aspirin'}]}
    """
    return choice_turn(row["A"], dict(zip("ABCD", (row[key] for key in "BCDE"), strict=True)), row["F"])


def pubmedqa_map_fn(row: Fields) -> dict[str, Any]:
    """{"QUESTION", "CONTEXTS": [text, ...], "LONG_ANSWER", "final_decision"?: yes|no|maybe}: PubMedQA.

    >>> pubmedqa_map_fn({"QUESTION": "Does it help?", "CONTEXTS": ["We gave it to 9."], "LONG_ANSWER": "It may.",
    ...                  "final_decision": "maybe"})["conversation"][0]["output"]
    'Maybe. It may.'
    """
    decision = str(row.get("final_decision") or "")
    ask = "Answer yes, no or maybe, and say why." if decision else ""
    answer = f"{decision.capitalize()}. {row['LONG_ANSWER']}" if decision else row["LONG_ANSWER"]
    return one_turn(join(*row["CONTEXTS"], row["QUESTION"], ask), answer)


def _medmcqa(row: Fields, counts_from: int) -> dict[str, Any]:
    options = {letter: row[f"op{letter.lower()}"] for letter in "ABCD"}
    answer = row.get("cop")
    if counts_from == 1 and answer in FROM_ZERO:
        raise DataError(
            "the answer is no number of an option: wanted 1 to 4. If it counts from 0, name the map function "
            "'medmcqa_from_zero'."
        )
    letter = "" if answer in (None, -1) else _letter(answer, counts_from, len(options))
    return choice_turn(row["question"], options, letter, row.get("exp"))


def _letter(number: Any, counts_from: int, num_options: int) -> str:
    """Letter of an option by its number."""
    last = counts_from + num_options - 1
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    text = str(number)
    if not text.isdecimal() or not counts_from <= int(text) <= last:
        raise DataError(f"the answer is no number of an option: wanted {counts_from} to {last}. Fix the row.")
    return LETTERS[int(text) - counts_from]
