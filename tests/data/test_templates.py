"""Templates: what is rendered, what is trained, and that the Jinja form says the same."""

from __future__ import annotations

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data.records import Message
from medtune.data.templates import (
    PROMPT_TEMPLATE,
    SYSTEM_TEMPLATE,
    Segment,
    Template,
    TokenizerTemplate,
    resolve_template,
    stop_strings,
    stop_token_ids,
)
from medtune.errors import ConfigError, DataError

XTUNER_NAMES = (  # noqa: SIM905
    "default zephyr internlm_chat moss_sft llama2_chat code_llama_chat chatglm2 chatglm3 qwen_chat baichuan_chat "
    "baichuan2_chat wizardlm internlm2_chat wizardcoder vicuna deepseek_coder deepseek_moe deepseek_v2 mistral mixtral "
    "minicpm minicpm3 deepseekcoder gemma cohere_chat llama3_chat phi3_chat"
).split()

LLAMA3_LIKE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start|>' + m['role'] + '<|stop|>\n\n' + m['content'] | trim "
    "+ '<|eot|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
STRIPS_THINK = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}"
    "{{ '<|im_start|>assistant\n' + m['content'].split('</think>')[-1] + '<|im_end|>\n' }}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
)

CONVERSATIONS = [
    [("user", "How much paracetamol?"), ("assistant", "At most 4 g a day.")],
    [("system", "Be brief."), ("user", "头孢可以和酒一起吗？"), ("assistant", "不可以，会引起双硫仑样反应。")],
    [("user", "{input} {system} {round} {0}"), ("assistant", "{{ messages }} {% raw %}"), ("user", "'\"\\n\\"),
     ("assistant", "two\nlines\n")],
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"),
     ("assistant", "f")],
    [("assistant", "a document, and no question")],
    [("user", "no answer yet")],
]  # fmt: skip


def messages_of(turns):
    return [Message(role, content, role == "assistant") for role, content in turns]


def as_dicts(messages):
    return [{"role": m.role, "content": m.content} for m in messages]


def text_of(segments):
    return "".join(segment.text for segment in segments)


def with_template(tokenizer, chat_template, **special):
    other = copy.deepcopy(tokenizer)
    if special:
        other.add_special_tokens(special)
    other.chat_template = chat_template
    return other


def test_every_xtuner_name_is_there_by_attribute_and_by_item():
    assert set(XTUNER_NAMES) | {"plain", "chatml", "qwen3"} <= set(PROMPT_TEMPLATE)
    for name in PROMPT_TEMPLATE:
        assert getattr(PROMPT_TEMPLATE, name) is PROMPT_TEMPLATE[name]
        assert PROMPT_TEMPLATE[name].name == name
    assert set(SYSTEM_TEMPLATE) == {*"moss_sft alpaca arxiv_gentile colorist coder lawyer medical sql".split()}  # noqa: SIM905
    assert SYSTEM_TEMPLATE.medical.startswith("你是") and all(
        isinstance(text, str) for text in SYSTEM_TEMPLATE.values()
    )


def test_an_unknown_name_is_answered_with_the_nearest_ones():
    with pytest.raises(ConfigError, match=r"'qwn_chat'.*Did you mean 'qwen_chat'"):
        PROMPT_TEMPLATE["qwn_chat"]
    with pytest.raises(AttributeError, match="Did you mean 'internlm_chat'"):
        PROMPT_TEMPLATE.internlm_caht  # noqa: B018


def test_internlm_chat_renders_as_xtuner_does_and_trains_the_answer_and_its_end():
    turns = [("system", "S"), ("user", "Q"), ("assistant", "A"), ("user", "Q2"), ("assistant", "A2")]
    assert PROMPT_TEMPLATE.internlm_chat.render(messages_of(turns)) == [
        Segment("<|System|>:S\n<|User|>:Q<eoh>\n<|Bot|>:", False),
        Segment("A<eoa>", True),
        Segment("\n<|User|>:Q2<eoh>\n<|Bot|>:", False),
        Segment("A2<eoa>", True),
        Segment("\n", False),
    ]


def test_a_message_that_is_not_trained_stays_a_segment_of_its_own():
    messages = [
        Message("user", "Q"),
        Message("assistant", "A"),
        Message("user", "Q2"),
        Message("assistant", "A2", True),
    ]
    segments = PROMPT_TEMPLATE.chatml.render(messages)
    assert [segment.text for segment in segments] == [
        segment.text for segment in PROMPT_TEMPLATE.chatml.render(messages_of([(m.role, m.content) for m in messages]))
    ]
    assert [segment.text for segment in segments if segment.trained] == ["A2<|im_end|>"]


def test_rounds_are_counted_and_braces_of_the_data_survive():
    turns = [("user", "{round}{input}"), ("assistant", "{system}"), ("user", "%s"), ("assistant", "x")]
    text = text_of(PROMPT_TEMPLATE.chatglm2.render(messages_of(turns)))
    assert text == "[Round 1]\n\n问：{round}{input}\n\n答：{system}\n\n[Round 2]\n\n问：%s\n\n答：x\n\n"


def test_plain_text_gets_nothing_but_bos_and_eos(tiny_tokenizer):
    template = resolve_template("plain", tiny_tokenizer)
    assert template.render([Message("assistant", "text", True)]) == [Segment("text<|im_end|>", True)]


def test_a_system_text_without_a_place_is_an_error_and_not_dropped():
    with pytest.raises(DataError, match="'minicpm' has no place for a system text"):
        PROMPT_TEMPLATE.minicpm.render(messages_of(CONVERSATIONS[1]))


@pytest.mark.parametrize("name", list(PROMPT_TEMPLATE))
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_jinja_renders_the_same_text_and_marks_the_same_answers(name, add_generation_prompt, tiny_tokenizer):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = resolve_template(name, with_template(tiny_tokenizer, None))
    template = Template(**{**vars(template), "bos": "<s>"})
    for turns in CONVERSATIONS:
        if name == "minicpm" and turns[0][0] == "system":
            continue
        messages = messages_of(turns)
        segments = template.render(messages, add_generation_prompt)
        texts, spans = render_jinja_template(
            conversations=[as_dicts(messages)],
            chat_template=template.to_jinja(),
            return_assistant_tokens_mask=True,
            add_generation_prompt=add_generation_prompt,
        )
        assert texts[0] == text_of(segments)
        assert [texts[0][a:b] for a, b in spans[0]] == [segment.text for segment in segments if segment.trained]


def test_jinja_takes_another_bos_and_refuses_a_system_text_where_there_is_no_place(tiny_tokenizer):
    tokenizer = with_template(tiny_tokenizer, PROMPT_TEMPLATE.minicpm.to_jinja("<bos>"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Q"}], tokenize=False) == "<bos><用户> Q <AI>"
    with pytest.raises(DataError, match="no place for a system text"):
        TokenizerTemplate(tokenizer).render(messages_of(CONVERSATIONS[1]))


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text(max_size=12), min_size=2, max_size=6),
    name=st.sampled_from(["chatml", "chatglm2", "llama2_chat", "plain"]),
)
def test_any_text_survives_both_renderers(texts, name):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = PROMPT_TEMPLATE[name]
    messages = messages_of(list(zip(["user", "assistant"] * 3, texts, strict=False)))
    text = text_of(template.render(messages))
    assert all(content in text for content in texts)
    assert render_jinja_template(conversations=[as_dicts(messages)], chat_template=template.to_jinja())[0] == [text]


def test_a_marked_chat_template_gives_its_own_marks(tiny_tokenizer):
    template = resolve_template(None, tiny_tokenizer)
    assert isinstance(template, TokenizerTemplate) and template.marked
    for turns in CONVERSATIONS:
        messages = messages_of(turns)
        segments = template.render(messages)
        assert text_of(segments) == tiny_tokenizer.apply_chat_template(as_dicts(messages), tokenize=False)
        assert [s.text for s in segments if s.trained] == [f"{c}<|im_end|>" for r, c in turns if r == "assistant"]


def test_marks_of_a_message_that_is_not_trained_are_not_trained(tiny_tokenizer):
    messages = [
        Message("user", "Q"),
        Message("assistant", "A"),
        Message("user", "Q2"),
        Message("assistant", "A2", True),
    ]
    segments = resolve_template(None, tiny_tokenizer).render(messages)
    assert [segment.text for segment in segments if segment.trained] == ["A2<|im_end|>"]


def test_marks_that_do_not_match_the_answers_are_an_error(tiny_tokenizer):
    mark = "{% generation %}{{ m.content }}{% endgeneration %}"
    first = f"{{% if loop.index0 == 1 %}}{mark}{{% else %}}{{{{ m.content }}}}{{% endif %}}"
    template = TokenizerTemplate(with_template(tiny_tokenizer, f"{{% for m in messages %}}{first}{{% endfor %}}"))
    with pytest.raises(DataError, match=r"marks 1 of 2 answers.*prompt_template"):
        template.render(messages_of([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]))


def test_without_marks_an_answer_is_what_the_conversation_gains_up_to_its_end_token(tiny_tokenizer):
    tokenizer = with_template(
        tiny_tokenizer, LLAMA3_LIKE, bos_token="<s>", additional_special_tokens=["<|start|>", "<|stop|>", "<|eot|>"]
    )
    template = resolve_template(None, tokenizer)
    assert not template.marked and template.stop_words == ("<|eot|>", "<|im_end|>")
    segments = template.render(messages_of([("user", "a"), ("assistant", " b "), ("user", "c"), ("assistant", "d")]))
    assert segments == [
        Segment("<s><|start|>user<|stop|>\n\na<|eot|><|start|>assistant<|stop|>\n\n", False),
        Segment("b<|eot|>", True),
        Segment("<|start|>user<|stop|>\n\nc<|eot|><|start|>assistant<|stop|>\n\n", False),
        Segment("d<|eot|>", True),
    ]


def test_without_marks_the_line_break_after_the_end_token_is_not_trained(tiny_tokenizer):
    template = resolve_template(None, with_template(tiny_tokenizer, STRIPS_THINK))
    assert template.render(messages_of(CONVERSATIONS[0]))[1:] == [
        Segment("At most 4 g a day.<|im_end|>", True),
        Segment("\n", False),
    ]


def test_a_template_that_rewrites_history_gives_a_row_for_each_answer(tiny_tokenizer):
    template = resolve_template(None, with_template(tiny_tokenizer, STRIPS_THINK))
    turns = [("user", "a"), ("assistant", "<think>t</think>b"), ("user", "c"), ("assistant", "d")]
    assert template.render_rows(messages_of(turns)) == [
        [
            Segment("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", False),
            Segment("<think>t</think>b<|im_end|>", True),
            Segment("\n", False),
        ],
        [
            Segment("<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
                    "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n", False),
            Segment("d<|im_end|>", True),
            Segment("\n", False),
        ],
    ]  # fmt: skip
    assert template.render(messages_of(turns)) == template.render_rows(messages_of(turns))[-1]


def test_a_separator_that_no_token_comes_before_is_not_trained_and_eos_is(tiny_tokenizer):
    lines = "{% for m in messages %}{{ {'user': 'Q: ', 'assistant': 'A: '}[m.role] + m.content + '\n' }}{% endfor %}"
    tokenizer = with_template(tiny_tokenizer, lines + "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}")
    template = resolve_template(None, tokenizer)
    for answer in ("b", "b ", "b\n"):  # white space of the answer itself stays
        turns = [("user", "a"), ("assistant", answer), ("user", "c"), ("assistant", "d")]
        rows = template.render_rows(messages_of(turns))
        assert [[s.text for s in row if s.trained] for row in rows] == [[answer + "<|im_end|>"], ["d<|im_end|>"]]
        assert text_of(rows[1]) == f"Q: a\nA: {answer}\nQ: c\nA: d<|im_end|>"


@pytest.mark.parametrize("opened", ["", "<think>\n"])
def test_reasoning_that_a_template_never_writes_is_trained_and_left_out_of_later_prompts(opened, tiny_tokenizer):
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1] + '<|im_end|>' }}"
        f"{{% endfor %}}{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n{opened}' }}}}{{% endif %}}"
    )
    template = resolve_template(None, with_template(tiny_tokenizer, source))
    messages = [
        Message("user", "a"),
        Message("assistant", "b", True, reasoning="t"),
        Message("user", "c"),
        Message("assistant", "<think>u</think>d", True),
    ]
    rows = template.render_rows(messages)
    assert [[opened + s.text for s in row if s.trained] for row in rows] == [
        ["<think>\nt\n</think>\n\nb<|im_end|>"],
        ["<think>\nu\n</think>\n\nd<|im_end|>"],
    ]
    assert "<think>\nt" not in text_of(rows[1])


@pytest.mark.parametrize("thought", ["", "t"])
def test_only_rows_with_a_trained_part_are_rendered_and_one_at_least(thought, tiny_tokenizer):
    template = resolve_template(None, with_template(tiny_tokenizer, STRIPS_THINK))
    turns = [Message("user", "a"), Message("assistant", "<think>t</think>b" if thought else "b"), Message("user", "c"),
             Message("assistant", "d", True)]  # fmt: skip
    assert len(template.render_rows(turns)) == 1
    assert [s.text for s in template.render_rows(turns)[0] if s.trained] == ["d<|im_end|>"]
    assert len(template.render_rows([*turns[:3], Message("assistant", "d")])) == 1


def test_a_system_text_that_a_template_passes_over_is_an_error(tiny_tokenizer):
    turns = (
        "{% for m in messages %}{% if m.role != 'system' %}{{ m.role + m.content + eos_token }}{% endif %}{% endfor %}"
    )
    tokenizer = with_template(tiny_tokenizer, turns + "{% if add_generation_prompt %}assistant{% endif %}")
    template = resolve_template(None, tokenizer)
    assert text_of(template.render_rows(messages_of(CONVERSATIONS[0]))[0]).startswith("userHow much")
    for _ in range(2):  # the second is answered from memory
        with pytest.raises(DataError, match=r"leaves out the system message.*prompt_template") as fault:
            template.render_rows(messages_of(CONVERSATIONS[1]))
        assert "brief" not in str(fault.value).lower()


def test_a_template_whose_answers_do_not_stand_where_its_prompt_ends_is_an_error(tiny_tokenizer):
    turns = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    elsewhere = turns + "{% if add_generation_prompt %}Go:{% endif %}"
    template = resolve_template(None, with_template(tiny_tokenizer, elsewhere))
    with pytest.raises(DataError, match=r"another place than where its prompt.*prompt_template: default") as fault:
        template.render(messages_of(CONVERSATIONS[0]))
    assert "\n" not in str(fault.value)


def test_a_refusal_shows_what_the_template_says_and_never_the_data(tiny_tokenizer):
    template = TokenizerTemplate(with_template(tiny_tokenizer, REFUSES_SYSTEM))
    with pytest.raises(DataError, match="System role not supported"):
        template.render(messages_of(CONVERSATIONS[1]))
    leaky = TokenizerTemplate(with_template(tiny_tokenizer, "{{ raise_exception(messages[0].content) }}"))
    with pytest.raises(DataError) as fault:
        leaky.render([Message("user", "secret of a patient"), Message("assistant", "x", True)])
    assert "secret" not in str(fault.value)


def test_a_chat_template_cannot_leave_the_sandbox(tiny_tokenizer):
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    template = TokenizerTemplate(with_template(tiny_tokenizer, escape))
    with pytest.raises(DataError, match="refuses"):
        template.render(messages_of(CONVERSATIONS[0]))


def test_resolving_takes_a_name_a_template_and_the_shape_of_xtuner(tiny_tokenizer):
    by_name = resolve_template("qwen_chat", tiny_tokenizer)
    assert by_name == resolve_template(PROMPT_TEMPLATE.qwen_chat, tiny_tokenizer)
    assert by_name == resolve_template(by_name, tiny_tokenizer)
    mapping = {
        "SYSTEM": "<|System|>:{system}\n",
        "INSTRUCTION": "<|User|>:{input}\n<|Bot|>:",
        "SEP": "\n",
        "STOP_WORDS": ["###"],
    }
    template = resolve_template(mapping, tiny_tokenizer)
    assert template.stop_words == ("###",)
    assert template.render(messages_of([("user", "Q"), ("assistant", "A")])) == [
        Segment("<|User|>:Q\n<|Bot|>:", False),
        Segment("A<|im_end|>", True),
        Segment("\n", False),
    ]
    ends_with_eos = {"INSTRUCTION": "{input}", "SUFFIX": "<|im_end|>"}
    assert resolve_template(ends_with_eos, tiny_tokenizer).end == "<|im_end|>"
    own = resolve_template(None, tiny_tokenizer)
    assert resolve_template(own, tiny_tokenizer) is own


@pytest.mark.parametrize(
    ("given_template", "message"),
    [
        ("qwn_chat", "Did you mean 'qwen_chat'"),
        ({"INSTRUCTION": "{input}", "SUFIX": "x"}, "unknown key 'SUFIX'. Did you mean 'SUFFIX'"),
        ({"SYSTEM": "{system}"}, "no INSTRUCTION"),
        ({"INSTRUCTION": "no place"}, "must hold {input} once"),
        ({"INSTRUCTION": "{input}", "STOP_WORDS": "x"}, "STOP_WORDS: got a str"),
        (7, "got a int"),
    ],
)
def test_a_wrong_prompt_template_is_one_clear_line(given_template, message, tiny_tokenizer):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve_template(given_template, tiny_tokenizer)


def test_a_tokenizer_without_a_chat_template_asks_for_a_name_and_lists_them(tiny_tokenizer):
    bare = with_template(tiny_tokenizer, None)
    bare.name_or_path = "internlm/internlm-chat-7b"
    with pytest.raises(ConfigError, match=r"no chat template.*qwen_chat.*Did you mean 'internlm_chat'"):
        resolve_template(None, bare)


def test_a_format_that_ends_with_eos_needs_a_tokenizer_that_has_one(tiny_tokenizer):
    bare = with_template(tiny_tokenizer, None)
    bare.eos_token = None
    with pytest.raises(ConfigError, match="'vicuna' ends answers with the eos token"):
        resolve_template("vicuna", bare)
    assert resolve_template("chatml", bare).end == "<|im_end|>"


def test_stops_are_ids_where_they_are_tokens_and_strings_where_not(tiny_tokenizer):
    qwen = resolve_template("qwen_chat", tiny_tokenizer)
    assert stop_token_ids(qwen, tiny_tokenizer) == {0, 2} and stop_strings(qwen, tiny_tokenizer) == []
    internlm = resolve_template("internlm_chat", tiny_tokenizer)
    assert stop_token_ids(internlm, tiny_tokenizer) == {2} and stop_strings(internlm, tiny_tokenizer) == ["<eoa>"]
    own = resolve_template(None, tiny_tokenizer)
    assert stop_token_ids(own, tiny_tokenizer) == {2} and stop_strings(own, tiny_tokenizer) == []
