"""The named formats, letter by letter: what each makes of one conversation, as its makers and XTuner have it."""

from __future__ import annotations

import re

import pytest

from medtune.data.records import Message
from medtune.data.templates import PROMPT_TEMPLATE, ToolFormat, resolve_template, stop_strings
from medtune.errors import DataError

LLAMA2_SYSTEM = (
    "[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
    "illegal content. Please ensure that your responses are socially unbiased and positive in "
    "nature.\nSYS\n<</SYS>>\n [/INST] "
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. SYS\n USER: Q1 ASSISTANT:⟦A1</s>⟧\nUSER: Q2 ASSISTANT:⟦A2</s>⟧\n"
)
DEEPSEEK_CODER = (
    "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by DeepSeekCompany, and you "
    "only answer questions related to computer science. For politically sensitive questions, security and privacy "
    "issues, and other non-computer science questions, you will refuse to answer. SYS\n"
    "### Instruction:\nQ1\n### Response:\n⟦A1</s>⟧\n### Instruction:\nQ2\n### Response:\n⟦A2</s>⟧\n"
)
CHATML = (
    "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n⟦A1<|im_end|>⟧\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n⟦A2<|im_end|>⟧\n"
)
INST = "[INST] SYS [/INST]\n[INST] Q1 [/INST]⟦A1</s>⟧\n[INST] Q2 [/INST]⟦A2</s>⟧\n"
COHERE_Q = "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{}<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"
LLAMA3_Q = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
GOLDEN = {  # name: (the conversation, trained parts between ⟦⟧, with </s> as the tokenizer's eos; the stop words)
    "default": ("<|System|>:SYS\n<|User|>:Q1\n<|Bot|>:⟦A1</s>⟧\n<|User|>:Q2\n<|Bot|>:⟦A2</s>⟧\n", []),
    "zephyr": (
        "<|system|>\nSYS\n<|user|>\nQ1\n<|assistant|>\n⟦A1</s>⟧\n<|user|>\nQ2\n<|assistant|>\n⟦A2</s>⟧\n",
        [],
    ),
    "internlm_chat": (
        "<|System|>:SYS\n<|User|>:Q1<eoh>\n<|Bot|>:⟦A1<eoa>⟧\n<|User|>:Q2<eoh>\n<|Bot|>:⟦A2<eoa>⟧\n",
        ["<eoa>"],
    ),
    "internlm2_chat": (CHATML, ["<|im_end|>"]),
    "moss_sft": ("SYS\n<|Human|>: Q1<eoh>\n⟦A1</s>⟧\n<|Human|>: Q2<eoh>\n⟦A2</s>⟧\n", ["<eoc>", "<eom>"]),
    "llama2_chat": (LLAMA2_SYSTEM + "[INST] Q1 [/INST]⟦A1</s>⟧\n[INST] Q2 [/INST]⟦A2</s>⟧\n", []),
    "code_llama_chat": ("SYS\n[INST] Q1 [/INST]⟦A1</s>⟧[INST] Q2 [/INST]⟦A2</s>⟧", []),
    "chatglm2": ("SYS\n[Round 1]\n\n问：Q1\n\n答：⟦A1</s>⟧\n\n[Round 2]\n\n问：Q2\n\n答：⟦A2</s>⟧\n\n", []),
    "chatglm3": ("<|system|>\nSYS<|user|>\nQ1<|assistant|>\n⟦A1</s>⟧\n<|user|>\nQ2<|assistant|>\n⟦A2</s>⟧\n", []),
    "qwen_chat": (CHATML, ["<|im_end|>", "<|endoftext|>"]),
    "baichuan_chat": (
        "SYS\n<reserved_102>Q1<reserved_103>⟦A1</s>⟧\n<reserved_102>Q2<reserved_103>⟦A2</s>⟧\n",
        [],
    ),
    "baichuan2_chat": (
        "SYS\n<reserved_106>Q1<reserved_107>⟦A1</s>⟧\n<reserved_106>Q2<reserved_107>⟦A2</s>⟧\n",
        [],
    ),
    "wizardlm": (VICUNA, []),
    "vicuna": (VICUNA, []),
    "wizardcoder": (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "SYS\n ### Instruction:\nQ1\n\n### Response:⟦A1</s>⟧\n\n### Instruction:\nQ2\n\n### Response:⟦A2</s>⟧\n\n",
        [],
    ),
    "deepseek_coder": (DEEPSEEK_CODER, []),
    "deepseekcoder": (DEEPSEEK_CODER, []),
    "deepseek_moe": (INST, []),
    "deepseek_v2": (
        "SYS\n\nUser: Q1\n\nAssistant: ⟦A1<｜end▁of▁sentence｜>⟧User: Q2\n\nAssistant: ⟦A2<｜end▁of▁sentence｜>⟧",
        ["<｜end▁of▁sentence｜>"],
    ),
    "mistral": (INST, []),
    "mixtral": (INST, []),
    "minicpm": ("<用户> Q1 <AI>⟦A1</s>⟧\n<用户> Q2 <AI>⟦A2</s>⟧\n", []),
    "minicpm3": (CHATML, ["<|im_end|>", "<|endoftext|>"]),
    "gemma": (
        "<start_of_turn>system\nSYS<end_of_turn>\n<start_of_turn>user\nQ1<end_of_turn>\n<start_of_turn>model\n"
        "⟦A1<end_of_turn></s>⟧\n<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\n⟦A2<end_of_turn></s>⟧\n",
        ["<end_of_turn>"],
    ),
    "cohere_chat": (
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>SYS<|END_OF_TURN_TOKEN|>"
        + COHERE_Q.format("Q1") + "⟦A1<|END_OF_TURN_TOKEN|>⟧" + COHERE_Q.format("Q2") + "⟦A2<|END_OF_TURN_TOKEN|>⟧",
        ["<|END_OF_TURN_TOKEN|>"],
    ),
    "llama3_chat": (
        "<|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>"
        + LLAMA3_Q.format("Q1") + "⟦A1<|eot_id|>⟧" + LLAMA3_Q.format("Q2") + "⟦A2<|eot_id|>⟧",
        ["<|eot_id|>"],
    ),
    "phi3_chat": (
        "<|system|>\nSYS<|end|>\n<|user|>\nQ1<|end|>\n<|assistant|>\n⟦A1<|end|>⟧\n<|user|>\nQ2<|end|>\n<|assistant|>\n"
        "⟦A2<|end|>⟧\n",
        ["<|end|>"],
    ),
}  # fmt: skip
OURS = {"plain", "chatml", "qwen3"}

TOOLS = [
    {"type": "function", "function": {"name": "dose", "description": "剂量", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {}}},
]
CALLS = ({"name": "dose", "arguments": {"drug": "布洛芬"}}, {"name": "stop", "arguments": {}})
TOOL_LOOP = [
    Message("system", "SYS"),
    Message("user", "Q1"),
    Message("assistant", "", True, CALLS),
    Message("tool", "400 mg"),
    Message("tool", "done"),
    Message("assistant", "A1", True, reasoning="so"),
    Message("user", "Q2"),
    Message("assistant", "wait", True, CALLS[:1]),
    Message("tool", "40"),
    Message("assistant", "A2", True),
]


class Eos:
    """A tokenizer that has nothing but an eos token."""

    eos_token = "</s>"
    name_or_path = "eos"

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [1]}

    def convert_ids_to_tokens(self, ids):
        return []


def painted(segments):
    return "".join(f"⟦{s.text}⟧" if s.trained else s.text for s in segments)


def test_every_named_format_is_in_this_table():
    assert set(GOLDEN) | OURS == set(PROMPT_TEMPLATE)


@pytest.mark.parametrize("name", list(GOLDEN))
def test_a_named_format_writes_every_letter_and_trains_answers_with_their_end(name):
    told, stops = GOLDEN[name]
    turns = [("system", "SYS"), ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    messages = [
        Message(role, content, role == "assistant") for role, content in turns if (name, role) != ("minicpm", "system")
    ]
    template = resolve_template(name, Eos())
    assert painted(template.render(messages)) == told
    assert list(template.stop_words) == stops


def test_questions_are_trained_where_they_stand_without_the_markup():
    messages = [Message("system", "SYS", True), Message("user", "Q1", True), Message("assistant", "A1", True)]
    prompt, answer, _ = PROMPT_TEMPLATE.chatml.render(messages)
    assert [prompt.text[start:end] for start, end in prompt.spans] == ["SYS", "Q1"]
    assert not prompt.trained and answer.text == "A1<|im_end|>" and answer.trained


def test_qwen_writes_tools_as_its_own_chat_template_does():
    assert painted(resolve_template("qwen3", Eos()).render(TOOL_LOOP, tools=TOOLS)) == (
        "<|im_start|>system\nSYS\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "dose", "description": "剂量", "parameters": {"type": "object"}}}\n'
        '{"type": "function", "function": {"name": "stop", "description": "", "parameters": {}}}\n</tools>\n\n'
        "For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
        'XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n"
        '⟦<tool_call>\n{"name": "dose", "arguments": {"drug": "布洛芬"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\n400 mg\n</tool_response>\n"
        "<tool_response>\ndone\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nso\n</think>\n\nA1<|im_end|>⟧\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n"
        '⟦wait\n<tool_call>\n{"name": "dose", "arguments": {"drug": "布洛芬"}}\n</tool_call><|im_end|>⟧\n'
        "<|im_start|>user\n<tool_response>\n40\n</tool_response><|im_end|>\n<|im_start|>assistant\n⟦A2<|im_end|>⟧\n"
    )


def test_internlm2_writes_tools_as_a_system_turn_of_their_own():
    assert painted(resolve_template("internlm2_chat", Eos()).render(TOOL_LOOP[:6], tools=TOOLS[:1])) == (
        "<|im_start|>system\nSYS<|im_end|>\n<|im_start|>system name=<|plugin|>\n"
        '[{"name": "dose", "description": "剂量", "parameters": {"type": "object"}}]<|im_end|>\n'
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n"
        '⟦<|action_start|><|plugin|>\n{"name": "dose", "parameters": {"drug": "布洛芬"}}<|action_end|>'
        '<|action_start|><|plugin|>\n{"name": "stop", "parameters": {}}<|action_end|><|im_end|>⟧\n'
        "<|im_start|>environment name=<|plugin|>\n400 mg\ndone<|im_end|>\n<|im_start|>assistant\n"
        "⟦<think>\nso\n</think>\n\nA1<|im_end|>⟧\n"
    )


@pytest.mark.parametrize("name", list(PROMPT_TEMPLATE))
def test_a_format_without_a_place_for_tools_refuses_them_in_one_line(name):
    template = resolve_template(name, Eos())
    if isinstance(template.tool_format, ToolFormat):
        assert name in ("qwen_chat", "qwen3", "internlm2_chat")
        return
    for messages, tools in ((TOOL_LOOP[1:], ()), ([Message("user", "Q"), Message("assistant", "A")], TOOLS)):
        with pytest.raises(
            DataError, match=f"'{name}' has no place for tools.*qwen_chat, qwen3, internlm2_chat"
        ) as fault:
            template.render(messages, tools=tools)
        assert "\n" not in str(fault.value) and "布洛芬" not in str(fault.value)


@pytest.mark.parametrize("name", ["qwen_chat", "qwen3", "internlm2_chat"])
@pytest.mark.parametrize("size", range(3, len(TOOL_LOOP) + 1))
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("add_generation_prompt", [False, True])
def test_the_saved_jinja_form_writes_tools_and_thoughts_the_same(name, size, first, add_generation_prompt):
    from transformers.utils.chat_template_utils import render_jinja_template

    from medtune.data.chat_template import message_dicts

    template = resolve_template(name, Eos())
    messages = TOOL_LOOP[first:size]
    for tools in (TOOLS, []):
        texts, spans = render_jinja_template(
            conversations=[message_dicts(messages)],
            tools=tools or None,
            chat_template=template.to_jinja(),
            return_assistant_tokens_mask=True,
            add_generation_prompt=add_generation_prompt,
        )
        segments = template.render(messages, add_generation_prompt, tools)
        assert texts[0] == "".join(segment.text for segment in segments)
        assert [texts[0][a:b] for a, b in spans[0]] == [segment.text for segment in segments if segment.trained]


def test_the_saved_jinja_form_refuses_tools_where_there_is_no_place():
    from medtune.data.chat_template import TemplateFault, render_chat_template

    source = resolve_template("vicuna", Eos()).to_jinja()
    for messages, tools in ((TOOL_LOOP[1:], ()), (TOOL_LOOP[1:2], TOOLS)):
        with pytest.raises(TemplateFault, match="no place for tools"):
            render_chat_template(source, messages, {}, tools=tools)


def test_stop_words_that_are_no_tokens_are_looked_for_in_the_text(tiny_tokenizer):
    assert stop_strings(resolve_template("moss_sft", tiny_tokenizer), tiny_tokenizer) == ["<eoc>", "<eom>"]
    assert re.fullmatch(r"<.*>", stop_strings(resolve_template("phi3_chat", tiny_tokenizer), tiny_tokenizer)[0])
