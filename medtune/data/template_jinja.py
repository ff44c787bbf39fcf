"""A named template as a transformers chat template, so that any tool reads from a checkpoint what was trained on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.data.templates import Template, ToolFormat

NO_TOOLS = "{{ raise_exception('This chat template has no place for tools.') }}"
NO_SYSTEM = "{{ raise_exception('This chat template has no place for a system text.') }}"
CONTENT = "(message['content'] or '')"
THOUGHT = "('<think>\\n' ~ message['reasoning_content'] ~ '\\n</think>\\n\\n' if message['reasoning_content'] else '')"


def to_jinja(template: Template, bos: str = "") -> str:
    """The format with `{% generation %}` marks around the trained parts.

    Args:
        template: a named template.
        bos: what opens the text, where it is not `template.bos`.
    """
    head, _, tail = template.instruction.partition("{input}")
    question = f"{{{{ {_literal(head)} ~ {CONTENT} ~ {_literal(tail)} }}}}"
    empty_question = f"{{% set turn.number = turn.number + 1 %}}{{{{ {_literal(head)} ~ {_literal(tail)} }}}}"
    tools = template.tool_format
    return (
        f"{{{{ {_literal(bos or template.bos)} }}}}"
        "{% set turn = namespace(number=0, asked=false, results='', calls='') %}"
        f"{_opening(template)}"
        "{% for message in messages %}"
        f"{{% if message['role'] == 'system' %}}{_system(template)}"
        "{% elif message['role'] == 'user' %}"
        f"{{% set turn.number = turn.number + 1 %}}{{% set turn.asked = true %}}{question}"
        f"{{% elif message['role'] == 'tool' %}}{_results(template, tools) if tools else NO_TOOLS}"
        f"{{% else %}}{{% if not turn.asked %}}{empty_question}{{% endif %}}"
        f"{_calls(tools) if tools else '{% if message.tool_calls %}' + NO_TOOLS + '{% endif %}'}"
        f"{{% generation %}}{{{{ {THOUGHT} ~ {CONTENT} ~ turn.calls ~ {_literal(template.end)} }}}}"
        "{% endgeneration %}"
        f"{{{{ {_literal(template.sep)} }}}}{{% set turn.asked = false %}}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt and not turn.asked %}}{empty_question}{{% endif %}}"
    )


def _opening(template: Template) -> str:
    """What stands before all turns where there are tools: the system text, with them in it or behind it."""
    tools = template.tool_format
    if tools is None:
        return f"{{% if tools %}}{NO_TOOLS}{{% endif %}}"
    head, _, tail = template.system.partition("{system}")
    before, _, after = tools.definitions.partition("{tools}")
    listed = "tools | map(attribute='function') | list | tojson" if tools.as_list else "turn.results"
    gather = (
        ""
        if tools.as_list
        else "{% for tool in tools %}{% set turn.results = turn.results ~ ('' if loop.first else '\\n') ~ "
        "(tool | tojson) %}{% endfor %}"
    )
    told = f"{_literal(before)} ~ ({listed}) ~ {_literal(after)}"
    system = "(messages[0]['content'] if messages and messages[0]['role'] == 'system' else '')"
    if tools.own_turn:
        opened = f"{_literal(head)} ~ {system} ~ {_literal(tail)} if {system} else ''"
        text = f"{{{{ {opened} }}}}{{{{ {told} }}}}"
    else:
        text = f"{{{{ {_literal(head)} ~ {system} ~ ('\\n\\n' if {system} else '') ~ {told} ~ {_literal(tail)} }}}}"
    return f"{{% if tools %}}{gather}{text}{{% set turn.results = '' %}}{{% endif %}}"


def _system(template: Template) -> str:
    head, _, tail = template.system.partition("{system}")
    text = f"{{{{ {_literal(head)} ~ message['content'] ~ {_literal(tail)} }}}}" if template.system else NO_SYSTEM
    condition = "message['content'] and not tools" if template.tool_format else "message['content']"
    return f"{{% if {condition} %}}{text}{{% endif %}}"


def _calls(tools: ToolFormat) -> str:
    """Sets `turn.calls` to the calls of a message, as the model writes them."""
    pieces = ["call['name'] | tojson" if part == "{name}" else "call['arguments'] | tojson" if part == "{arguments}"
              else _literal(part) for part in tools.call_parts()]  # fmt: skip
    glue = f"('' if loop.first and not message['content'] else {_literal(tools.glue)})"
    written = " ~ ".join(f"({piece})" for piece in pieces)
    return (
        "{% set turn.calls = '' %}{% for tool_call in message.tool_calls or [] %}"
        "{% set call = tool_call.function if tool_call.function else tool_call %}"
        f"{{% set turn.calls = turn.calls ~ {glue} ~ {written} %}}{{% endfor %}}"
    )


def _results(template: Template, tools: ToolFormat) -> str:
    """Gathers the results that follow each other, and writes them as one question after the last."""
    before, _, after = tools.result.partition("{result}")
    head, _, tail = (tools.results or template.instruction).partition("{input}")
    return (
        f"{{% set turn.results = turn.results ~ ('\\n' if turn.results else '') ~ "
        f"{_literal(before)} ~ {CONTENT} ~ {_literal(after)} %}}"
        "{% if loop.last or messages[loop.index]['role'] != 'tool' %}"
        f"{{{{ {_literal(head)} ~ turn.results ~ {_literal(tail)} }}}}"
        "{% set turn.results = '' %}{% set turn.asked = true %}{% endif %}"
    )


def _literal(text: str) -> str:
    """A Jinja expression for template text: a string literal, with {round} as the turn's number."""
    parts = [json.dumps(part, ensure_ascii=False) for part in text.split("{round}")]
    return " ~ turn.number ~ ".join(parts)
