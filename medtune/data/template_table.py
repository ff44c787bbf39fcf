"""The named dialogue formats and system texts, as plain data.

The format strings are facts about the models they belong to; the names and fields are XTuner's (0.1.23, 0.2.0), so
that its configs keep their meaning. `medtune.data.templates` turns them into `Template`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from medtune.errors import ConfigError, nearest

T = TypeVar("T")


class NameTable(dict[str, T]):
    """A dict whose names are attributes too; an unknown name is answered with the nearest ones."""

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        super().__init__(entries)
        self._kind = kind

    def __missing__(self, name: str) -> T:
        raise ConfigError(self._unknown(name))

    def __getattr__(self, name: str) -> T:
        if name in self:
            return self[name]
        raise AttributeError(name if name.startswith("_") else self._unknown(name))

    def _unknown(self, name: str) -> str:
        return f"no {self._kind} is called {name!r}.{nearest(name, self)} Known are {', '.join(self)}."


_CHATML: dict[str, Any] = {
    "system": "<|im_start|>system\n{system}<|im_end|>\n",
    "instruction": "<|im_start|>user\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "suffix": "<|im_end|>",
    "suffix_as_eos": True,
    "sep": "\n",
    "stop_words": ("<|im_end|>",),
}
_QWEN_TOOLS = {
    "definitions": "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided "
    "with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\nFor each function call, "
    "return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>',
    "call": '<tool_call>\n{"name": {name}, "arguments": {arguments}}\n</tool_call>',
    "result": "<tool_response>\n{result}\n</tool_response>",
    "glue": "\n",
}
_INTERNLM2_TOOLS = {
    "definitions": "<|im_start|>system name=<|plugin|>\n{tools}<|im_end|>\n",
    "call": '<|action_start|><|plugin|>\n{"name": {name}, "parameters": {arguments}}<|action_end|>',
    "results": "<|im_start|>environment name=<|plugin|>\n{input}<|im_end|>\n<|im_start|>assistant\n",
    "as_list": True,
    "own_turn": True,
}
_QWEN = {**_CHATML, "stop_words": ("<|im_end|>", "<|endoftext|>")}
_QWEN2 = {**_QWEN, "tool_format": _QWEN_TOOLS}
_INST = {"system": "[INST] {system} [/INST]\n", "instruction": "[INST] {input} [/INST]", "sep": "\n"}
_VICUNA = {
    "system": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. {system}\n ",
    "instruction": "USER: {input} ASSISTANT:",
    "sep": "\n",
}

_DEEPSEEK_CODER = {
    # "DeepSeekCompany" is how the model was trained.
    "system": "You are an AI programming assistant, utilizing the DeepSeek Coder model, developed by "
    "DeepSeekCompany, and you only answer questions related to computer science. For politically sensitive "
    "questions, security and privacy issues, and other non-computer science questions, you will refuse to answer. "
    "{system}\n",
    "instruction": "### Instruction:\n{input}\n### Response:\n",
    "sep": "\n",
}

TEMPLATES: dict[str, dict[str, Any]] = {
    "default": {"system": "<|System|>:{system}\n", "instruction": "<|User|>:{input}\n<|Bot|>:", "sep": "\n"},
    # Text as it is, for pre-training: nothing but the document and the tokenizer's own first and last tokens.
    "plain": {"system": "{system}", "instruction": "{input}"},
    "chatml": _CHATML,
    "qwen_chat": _QWEN2,
    "qwen3": _QWEN2,
    "internlm_chat": {
        "system": "<|System|>:{system}\n",
        "instruction": "<|User|>:{input}<eoh>\n<|Bot|>:",
        "suffix": "<eoa>",
        "suffix_as_eos": True,
        "sep": "\n",
        "stop_words": ("<eoa>",),
    },
    "internlm2_chat": {**_CHATML, "tool_format": _INTERNLM2_TOOLS},
    "zephyr": {
        "system": "<|system|>\n{system}\n",
        "instruction": "<|user|>\n{input}\n<|assistant|>\n",
        "sep": "\n",
    },
    "moss_sft": {
        "system": "{system}\n",
        "instruction": "<|Human|>: {input}<eoh>\n",
        "sep": "\n",
        "stop_words": ("<eoc>", "<eom>"),
    },
    "llama2_chat": {
        "system": "[INST] <<SYS>>\n You are a helpful, respectful and honest assistant. Always answer as helpfully as "
        "possible, while being safe. Your answers should not include any harmful, unethical, racist, sexist, toxic, "
        "dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive in "
        "nature.\n{system}\n<</SYS>>\n [/INST] ",
        "instruction": "[INST] {input} [/INST]",
        "sep": "\n",
    },
    "code_llama_chat": {"system": "{system}\n", "instruction": "[INST] {input} [/INST]"},
    "llama3_chat": {
        "system": "<|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>",
        "instruction": "<|start_header_id|>user<|end_header_id|>\n\n{input}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "suffix": "<|eot_id|>",
        "suffix_as_eos": True,
        "stop_words": ("<|eot_id|>",),
    },
    "chatglm2": {"system": "{system}\n", "instruction": "[Round {round}]\n\n问：{input}\n\n答：", "sep": "\n\n"},
    "chatglm3": {
        "system": "<|system|>\n{system}",
        "instruction": "<|user|>\n{input}<|assistant|>\n",
        "sep": "\n",
    },
    "baichuan_chat": {"system": "{system}\n", "instruction": "<reserved_102>{input}<reserved_103>", "sep": "\n"},
    "baichuan2_chat": {"system": "{system}\n", "instruction": "<reserved_106>{input}<reserved_107>", "sep": "\n"},
    "vicuna": _VICUNA,
    "wizardlm": _VICUNA,
    "wizardcoder": {
        "system": "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n{system}\n ",
        "instruction": "### Instruction:\n{input}\n\n### Response:",
        "sep": "\n\n",
    },
    "deepseek_coder": _DEEPSEEK_CODER,
    "deepseekcoder": _DEEPSEEK_CODER,  # its first name in XTuner
    "deepseek_moe": _INST,
    "deepseek_v2": {
        "system": "{system}\n\n",
        "instruction": "User: {input}\n\nAssistant: ",
        "suffix": "<｜end▁of▁sentence｜>",
        "suffix_as_eos": True,
        "stop_words": ("<｜end▁of▁sentence｜>",),
    },
    "mistral": _INST,
    "mixtral": _INST,
    "minicpm": {"instruction": "<用户> {input} <AI>", "sep": "\n"},
    "minicpm3": _QWEN,
    "gemma": {
        # The model has no system turn; XTuner gave it one.
        "system": "<start_of_turn>system\n{system}<end_of_turn>\n",
        "instruction": "<start_of_turn>user\n{input}<end_of_turn>\n<start_of_turn>model\n",
        "suffix": "<end_of_turn>",
        "sep": "\n",
        "stop_words": ("<end_of_turn>",),
    },
    "cohere_chat": {
        "system": "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>{system}<|END_OF_TURN_TOKEN|>",
        "instruction": "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{input}<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "suffix": "<|END_OF_TURN_TOKEN|>",
        "suffix_as_eos": True,
        "stop_words": ("<|END_OF_TURN_TOKEN|>",),
    },
    "phi3_chat": {
        "system": "<|system|>\n{system}<|end|>\n",
        "instruction": "<|user|>\n{input}<|end|>\n<|assistant|>\n",
        "suffix": "<|end|>",
        "suffix_as_eos": True,
        "sep": "\n",
        "stop_words": ("<|end|>",),
    },
}

_SYSTEM_TEXTS = {
    "moss_sft": "You are an AI assistant with inner thoughts and tools. Tools that are enabled: web search, "
    "Search(query); a calculator, Calculate(expression); an equation solver, Solve(equation). Tools that are "
    "disabled: text to image, image editing, text to speech.\n",
    "alpaca": "You are given an instruction. Carry it out as asked, completely and correctly.\n",
    "arxiv_gentile": "You are an experienced researcher. Read the abstract and propose a precise title for it.\n",
    "colorist": "You are a colour designer. Answer the description you are given with colours that fit it.\n",
    "coder": "You are an experienced programmer. Answer the description you are given with code that does it.\n",
    "lawyer": "你是一名熟悉中国法律的专业律师，请针对用户的问题给出准确并有法律依据的解答。\n",
    "medical": "你是一名专业的医生，请根据患者的描述，认真、准确地回答医学问题；情况紧急时请提醒患者及时就医。\n",
    "sql": "You are an SQL expert. Given CREATE TABLE statements and a question, write the query that answers it.\n",
}

SYSTEM_TEMPLATE: NameTable[str] = NameTable("system template", _SYSTEM_TEXTS)
