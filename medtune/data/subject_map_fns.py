"""The map functions XTuner tied to one subject or task; each brings a system text or a protocol of its own.

Import them from `medtune.data.map_fns`, which says what a map function is.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from medtune.data.templates import SYSTEM_TEMPLATE
from medtune.data.turns import Fields, join, one_turn

TOOL_CALL = re.compile(
    r"<\|startofthink\|>(?P<call>.*?)<\|endofthink\|>\s*(?:<\|startofexec\|>(?P<result>.*?)<\|endofexec\|>)?", re.DOTALL
)
CODE_FENCE = re.compile(r"^```\w*\s*|\s*```$")
REACT_FORMAT = (
    "To call a tool, write three lines: `Thought:` and why, `Action:` and the tool's name, `Action Input:` and its "
    "parameters as JSON. The tool answers with `Response:`. When you know the answer, give it after `Final Answer:`."
)


def arxiv_map_fn(row: Fields) -> dict[str, Any]:
    """{"abstract", "title"}; the title is the answer; brings SYSTEM_TEMPLATE.arxiv_gentile.

    >>> arxiv_map_fn({"abstract": "We study sleep.", "title": "On sleep"})
    {'conversation': [{'system': ..., 'input': 'We study sleep.', 'output': 'On sleep'}]}
    """
    return one_turn(row["abstract"], row["title"], SYSTEM_TEMPLATE.arxiv_gentile)


def code_alpaca_map_fn(row: Fields) -> dict[str, Any]:
    """{"prompt", "completion"}; brings SYSTEM_TEMPLATE.coder.

    >>> code_alpaca_map_fn({"prompt": "Add 1 and 2.", "completion": "1 + 2"})
    {'conversation': [{'system': ..., 'input': 'Add 1 and 2.', 'output': '1 + 2'}]}
    """
    return one_turn(row["prompt"], row["completion"], SYSTEM_TEMPLATE.coder)


def colors_map_fn(row: Fields) -> dict[str, Any]:
    """{"description": "Name: what it looks like", "color"}; brings SYSTEM_TEMPLATE.colorist.

    >>> colors_map_fn({"description": "Sky: a clear blue", "color": "#87ceeb"})
    {'conversation': [{'system': ..., 'input': 'a clear blue', 'output': '#87ceeb'}]}
    """
    return one_turn(row["description"].split(": ", 1)[-1], row["color"], SYSTEM_TEMPLATE.colorist)


def crime_kg_assitant_map_fn(row: Fields) -> dict[str, Any]:
    """{"input", "output"}; brings SYSTEM_TEMPLATE.lawyer (XTuner's spelling of the name).

    >>> crime_kg_assitant_map_fn({"input": "May I record a call?", "output": "That depends on the country."})
    {'conversation': [{'system': ..., 'input': 'May I record a call?', 'output': 'That depends on the country.'}]}
    """
    return one_turn(row["input"], row["output"], SYSTEM_TEMPLATE.lawyer)


def law_reference_map_fn(row: Fields) -> dict[str, Any]:
    """{"question", "answer"}; brings SYSTEM_TEMPLATE.lawyer.

    >>> law_reference_map_fn({"question": "What is a tort?", "answer": "A civil wrong."})
    {'conversation': [{'system': ..., 'input': 'What is a tort?', 'output': 'A civil wrong.'}]}
    """
    return one_turn(row["question"], row["answer"], SYSTEM_TEMPLATE.lawyer)


def medical_map_fn(row: Fields) -> dict[str, Any]:
    """{"instruction", "input"?, "output"}; brings SYSTEM_TEMPLATE.medical.

    >>> medical_map_fn({"instruction": "感冒了怎么办？", "input": "", "output": "多休息，多喝水。"})
    {'conversation': [{'system': ..., 'input': '感冒了怎么办？', 'output': '多休息，多喝水。'}]}
    """
    return one_turn(join(row["instruction"], row.get("input")), row["output"], SYSTEM_TEMPLATE.medical)


def sql_map_fn(row: Fields) -> dict[str, Any]:
    """{"context": "CREATE TABLE ...", "question", "answer"}; brings SYSTEM_TEMPLATE.sql.

    >>> sql_map_fn({"context": "CREATE TABLE ward (id INT)", "question": "How many?", "answer": "SELECT COUNT(*)"})
    {'conversation': [{'system': ..., 'input': 'CREATE TABLE ward (id INT)\\nHow many?', 'output': 'SELECT COUNT(*)'}]}
    """
    return one_turn(join(row["context"], row["question"]), row["answer"], SYSTEM_TEMPLATE.sql)


def tiny_codes_map_fn(row: Fields) -> dict[str, Any]:
    """{"prompt", "response"}; brings SYSTEM_TEMPLATE.coder.

    >>> tiny_codes_map_fn({"prompt": "Add 1 and 2.", "response": "1 + 2"})
    {'conversation': [{'system': ..., 'input': 'Add 1 and 2.', 'output': '1 + 2'}]}
    """
    return one_turn(row["prompt"], row["response"], SYSTEM_TEMPLATE.coder)


def msagent_react_map_fn(row: Fields) -> dict[str, Any]:
    """{"conversations": text or list of {"from": system|user|assistant, "value"}}: MSAgent-Bench, to ReAct.

    A tool call inside an answer becomes a turn of its own; what the tool said is the next turn's input, without loss.

    >>> talk = '''[{"from": "user", "value": "Weather?"}, {"from": "assistant", "value": "I look.<|startofthink|>
    ... {'api_name': 'sky', 'parameters': {'day': 1}}<|endofthink|><|startofexec|>rain<|endofexec|>It rains."}]'''
    >>> turns = msagent_react_map_fn({"conversations": talk.replace(chr(10), " ")})["conversation"]
    >>> turns[0]
    {'input': 'Weather?', 'output': 'Thought: I look.\\nAction: sky\\nAction Input: {"day": 1}'}
    >>> turns[1]
    {'input': 'Response: rain', 'output': 'Final Answer: It rains.'}
    """
    system, asked, turns = "", [], []
    for message in _literal(row["conversations"]):
        role, text = message["from"], message["value"]
        if role == "system":
            system = join(system, text)
        elif role == "user":
            asked.append(text)
        else:
            for output, result in _react_steps(text):
                turns.append({"input": "\n".join(asked), "output": output})
                asked = [f"Response: {result}"] if result else []
    if system and turns:
        turns[0] = {"system": f"{system}\n{REACT_FORMAT}", **turns[0]}
    return {"conversation": turns}


def _literal(value: Any) -> Any:
    """Read a JSON or Python literal; never evaluates code."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return ast.literal_eval(value.strip())


def _react_steps(text: str) -> list[tuple[str, str]]:
    """Cut an MSAgent answer into (what the assistant writes, what the tool returned or "") steps."""
    steps, at = [], 0
    for match in TOOL_CALL.finditer(text):
        call = _literal(CODE_FENCE.sub("", match["call"].strip()))
        parameters = json.dumps(call.get("parameters", {}), ensure_ascii=False)
        thought = text[at : match.start()].strip()
        action = f"Action: {call['api_name']}\nAction Input: {parameters}"
        result = CODE_FENCE.sub("", (match["result"] or "").strip())
        steps.append((f"Thought: {thought}\n{action}" if thought else action, result))
        at = match.end()
    if rest := text[at:].strip():
        steps.append((f"Final Answer: {rest}", ""))
    return steps
