"""The models that a config's name may begin with, as data: hub id, chat format, architecture, what to know.

`template` is None where the tokenizer brings the model's published chat format; a named format, or a mapping, where it
brings none. Base models have no published format: theirs is the one XTuner trained them with, or the family's.
`trains_as` is transformers' model type: that of its class, also where the weights are mapped into it from an older one.
"""

from __future__ import annotations

from typing import NamedTuple


class Model(NamedTuple):
    """One model."""

    family: str
    """Folder of its configs, and heading in `list-cfg`."""
    hub_id: str
    trains_as: str
    template: str | dict[str, str] | None = None
    note: str = ""
    """What a user must know before the download."""
    lora: str = ""
    """A setting that its adapters need, as a config writes it."""

    @property
    def title(self) -> str:
        """What its authors call it."""
        return self.hub_id.rsplit("/", 1)[-1]


_GATED = "Gated: accept the licence on its page at huggingface.co, then `hf auth login`."


def _llama(hub_id: str, template: str | None = None) -> Model:
    return Model("llama", hub_id, "llama", template, _GATED)


def _gemma(hub_id: str, trains_as: str, lora: str = "") -> Model:
    return Model("gemma", hub_id, trains_as, note=_GATED, lora=lora)


_ACADEMIC = "The weights are free for research; for commercial use its authors want a form."
_EXPERTS = "lora_dropout = 0  # PEFT adapts experts without dropout"
_TEXT_PART = 'lora_target_modules = r".*language_model.*_proj"  # not the part that sees: medtune trains on text'
_HAI_DEF = f"Terms of the Health AI Developer Foundations.\n{_GATED}"
_BAICHUAN2_CHAT = {"SYSTEM": "{system}", "INSTRUCTION": "<reserved_106>{input}<reserved_107>"}  # no break between turns

MODELS: dict[str, Model] = {
    "med_llama_tiny": Model("med_llama", "med-llama-tiny", "llama"),
    # InternLM
    "internlm_7b": Model("internlm", "internlm/internlm-7b", "llama", "internlm_chat"),
    "internlm_chat_7b": Model("internlm", "internlm/internlm-chat-7b", "llama", "internlm_chat"),
    "internlm_20b": Model("internlm", "internlm/internlm-20b", "llama", "internlm_chat"),
    "internlm_chat_20b": Model("internlm", "internlm/internlm-chat-20b", "llama", "internlm_chat"),
    "internlm2_7b": Model("internlm", "internlm/internlm2-7b", "llama", "internlm2_chat"),
    "internlm2_chat_1_8b": Model("internlm", "internlm/internlm2-chat-1_8b", "llama"),
    "internlm2_chat_7b": Model("internlm", "internlm/internlm2-chat-7b", "llama"),
    "internlm2_chat_20b": Model("internlm", "internlm/internlm2-chat-20b", "llama"),
    "internlm2_5_1_8b_chat": Model("internlm", "internlm/internlm2_5-1_8b-chat", "llama"),
    "internlm2_5_chat_7b": Model("internlm", "internlm/internlm2_5-7b-chat", "llama"),
    "internlm3_8b_instruct": Model("internlm", "internlm/internlm3-8b-instruct", "internlm3"),
    # Llama
    "llama_7b": Model(
        "llama", "huggyllama/llama-7b", "llama", "default", "Under Meta's licence of LLaMA: research only."
    ),
    "llama2_7b": _llama("meta-llama/Llama-2-7b-hf", "llama2_chat"),
    "llama2_7b_chat": _llama("meta-llama/Llama-2-7b-chat-hf"),
    "llama2_70b": _llama("meta-llama/Llama-2-70b-hf", "llama2_chat"),
    "llama3_8b": _llama("meta-llama/Meta-Llama-3-8B", "llama3_chat"),
    "llama3_8b_instruct": _llama("meta-llama/Meta-Llama-3-8B-Instruct"),
    "llama3_1_8b_instruct": _llama("meta-llama/Llama-3.1-8B-Instruct"),
    "llama3_2_1b_instruct": _llama("meta-llama/Llama-3.2-1B-Instruct"),
    "llama3_2_3b_instruct": _llama("meta-llama/Llama-3.2-3B-Instruct"),
    "llama3_3_70b_instruct": _llama("meta-llama/Llama-3.3-70B-Instruct"),
    # ChatGLM and GLM
    "chatglm2_6b": Model("chatglm", "zai-org/chatglm2-6b", "glm", "chatglm2", _ACADEMIC),
    "chatglm3_6b": Model("chatglm", "zai-org/chatglm3-6b", "glm", None, _ACADEMIC),
    "chatglm3_6b_base": Model("chatglm", "zai-org/chatglm3-6b-base", "glm", "chatglm3", _ACADEMIC),
    "glm4_9b_chat": Model("chatglm", "zai-org/glm-4-9b-chat-hf", "glm"),
    "glm4_9b_0414": Model("chatglm", "zai-org/GLM-4-9B-0414", "glm4"),
    # Qwen
    "qwen_1_8b": Model("qwen", "Qwen/Qwen-1_8B", "qwen2", "qwen_chat"),
    "qwen_1_8b_chat": Model("qwen", "Qwen/Qwen-1_8B-Chat", "qwen2", "qwen_chat"),
    "qwen_7b": Model("qwen", "Qwen/Qwen-7B", "qwen2", "qwen_chat"),
    "qwen_7b_chat": Model("qwen", "Qwen/Qwen-7B-Chat", "qwen2", "qwen_chat"),
    "qwen1_5_0_5b_chat": Model("qwen", "Qwen/Qwen1.5-0.5B-Chat", "qwen2"),
    "qwen1_5_7b_chat": Model("qwen", "Qwen/Qwen1.5-7B-Chat", "qwen2"),
    "qwen2_1_5b_instruct": Model("qwen", "Qwen/Qwen2-1.5B-Instruct", "qwen2"),
    "qwen2_7b_instruct": Model("qwen", "Qwen/Qwen2-7B-Instruct", "qwen2"),
    "qwen2_5_0_5b_instruct": Model("qwen", "Qwen/Qwen2.5-0.5B-Instruct", "qwen2"),
    "qwen2_5_1_5b_instruct": Model("qwen", "Qwen/Qwen2.5-1.5B-Instruct", "qwen2"),
    "qwen2_5_3b_instruct": Model("qwen", "Qwen/Qwen2.5-3B-Instruct", "qwen2"),
    "qwen2_5_7b_instruct": Model("qwen", "Qwen/Qwen2.5-7B-Instruct", "qwen2"),
    "qwen2_5_14b_instruct": Model("qwen", "Qwen/Qwen2.5-14B-Instruct", "qwen2"),
    "qwen2_5_32b_instruct": Model("qwen", "Qwen/Qwen2.5-32B-Instruct", "qwen2"),
    "qwen2_5_72b_instruct": Model("qwen", "Qwen/Qwen2.5-72B-Instruct", "qwen2"),
    "qwen3_0_6b": Model("qwen", "Qwen/Qwen3-0.6B", "qwen3"),
    "qwen3_1_7b": Model("qwen", "Qwen/Qwen3-1.7B", "qwen3"),
    "qwen3_4b": Model("qwen", "Qwen/Qwen3-4B", "qwen3"),
    "qwen3_4b_instruct_2507": Model("qwen", "Qwen/Qwen3-4B-Instruct-2507", "qwen3"),
    "qwen3_8b": Model("qwen", "Qwen/Qwen3-8B", "qwen3"),
    "qwen3_14b": Model("qwen", "Qwen/Qwen3-14B", "qwen3"),
    "qwen3_32b": Model("qwen", "Qwen/Qwen3-32B", "qwen3"),
    "qwen3_30b_a3b": Model("qwen", "Qwen/Qwen3-30B-A3B", "qwen3_moe", lora=_EXPERTS),
    # Baichuan
    "baichuan_7b": Model("baichuan", "baichuan-inc/Baichuan-7B", "llama", "baichuan_chat", _ACADEMIC),
    "baichuan2_7b_base": Model("baichuan", "baichuan-inc/Baichuan2-7B-Base", "llama", "baichuan2_chat", _ACADEMIC),
    "baichuan2_7b_chat": Model("baichuan", "baichuan-inc/Baichuan2-7B-Chat", "llama", _BAICHUAN2_CHAT, _ACADEMIC),
    # Mistral, Zephyr, Yi, StarCoder
    "mistral_7b": Model("mistral", "mistralai/Mistral-7B-v0.1", "mistral", "mistral"),
    "mistral_7b_instruct": Model("mistral", "mistralai/Mistral-7B-Instruct-v0.3", "mistral"),
    "mixtral_8x7b_instruct": Model("mistral", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", lora=_EXPERTS),
    "zephyr_7b_beta": Model("mistral", "HuggingFaceH4/zephyr-7b-beta", "mistral"),
    "yi_6b": Model("yi", "01-ai/Yi-6B", "llama", "default"),
    "yi_34b": Model("yi", "01-ai/Yi-34B", "llama", "default"),
    "yi1_5_6b_chat": Model("yi", "01-ai/Yi-1.5-6B-Chat", "llama"),
    "starcoder": Model("starcoder", "bigcode/starcoder", "gpt_bigcode", "default", _GATED),
    # Gemma
    "gemma2_2b_it": _gemma("google/gemma-2-2b-it", "gemma2"),
    "gemma2_9b_it": _gemma("google/gemma-2-9b-it", "gemma2"),
    "gemma3_1b_it": _gemma("google/gemma-3-1b-it", "gemma3_text"),
    "gemma3_4b_it": _gemma("google/gemma-3-4b-it", "gemma3", _TEXT_PART),
    "gemma3_270m_it": _gemma("google/gemma-3-270m-it", "gemma3_text"),
    # Phi
    "phi3_mini_4k_instruct": Model("phi", "microsoft/Phi-3-mini-4k-instruct", "phi3"),
    "phi3_5_mini_instruct": Model("phi", "microsoft/Phi-3.5-mini-instruct", "phi3"),
    "phi4": Model("phi", "microsoft/phi-4", "phi3"),
    "phi4_mini_instruct": Model("phi", "microsoft/Phi-4-mini-instruct", "phi3"),
    # DeepSeek's distillations
    "deepseek_r1_distill_qwen_1_5b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "qwen2"),
    "deepseek_r1_distill_qwen_7b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "qwen2"),
    "deepseek_r1_distill_qwen_14b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "qwen2"),
    "deepseek_r1_distill_qwen_32b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B", "qwen2"),
    "deepseek_r1_distill_llama_8b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "llama"),
    "deepseek_r1_distill_llama_70b": Model("deepseek", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B", "llama"),
    # Models of medicine
    "medgemma_4b_it": Model("medical", "google/medgemma-4b-it", "gemma3", None, _HAI_DEF, _TEXT_PART),
    "medgemma_27b_text_it": Model("medical", "google/medgemma-27b-text-it", "gemma3_text", None, _HAI_DEF),
    "meditron_7b": Model("medical", "epfl-llm/meditron-7b", "llama", "default", _GATED),
    "meditron3_8b": Model("medical", "OpenMeditron/Meditron3-8B", "llama", "llama3_chat"),
    "huatuogpt_o1_7b": Model("medical", "FreedomIntelligence/HuatuoGPT-o1-7B", "qwen2"),
    "huatuogpt_o1_8b": Model("medical", "FreedomIntelligence/HuatuoGPT-o1-8B", "llama"),
    "biomistral_7b": Model("medical", "BioMistral/BioMistral-7B", "mistral", "mistral"),
    "med42_8b": Model("medical", "m42-health/Llama3-Med42-8B", "llama"),
}

_ALIBI = "its attention has ALiBi biases in place of rotary positions, which no class of transformers has."
REFUSED: dict[str, str] = {
    **dict.fromkeys(("baichuan_13b_base", "baichuan_13b_chat", "baichuan2_13b_base", "baichuan2_13b_chat"), _ALIBI),
}
"""Models that XTuner had configs for and medtune has none for, and why."""
