"""The layouts of InternLM 1 and 2, Qwen 1, Baichuan 7B and ChatGLM2/3, from their config.json alone.

Sources: the modelling files that these repositories publish. Long-context tricks of theirs that act only beyond the
length they were trained on (Qwen's logn attention and dynamic NTK) are left out; the length is the config's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from medtune.errors import ModelError
from medtune.files import read_json
from medtune.models.legacy.layout import Layout, Part, for_layers, stacked, whole

SaveFormat = Literal["huggingface", "original"]
"""How a model is written: for transformers' own class, or as its authors stored it."""
MOST = 1 << 20  # layers, heads, rows: a config that says more is not one of these models'
ATTENTION = "model.layers.{}.self_attn"
MLP = "model.layers.{}.mlp"
LLAMA_MLP = (f"{MLP}.gate_proj.weight", f"{MLP}.up_proj.weight", f"{MLP}.down_proj.weight")
LLAMA_NORMS = ("model.layers.{}.input_layernorm.weight", "model.layers.{}.post_attention_layernorm.weight")
LEGACY_ARCHITECTURES = {
    "InternLMForCausalLM": "internlm",
    "InternLM2ForCausalLM": "internlm2",
    "QWenLMHeadModel": "qwen",
    "BaiChuanForCausalLM": "baichuan",
    "BaichuanForCausalLM": "baichuan",
    "ChatGLMModel": "chatglm",
    "ChatGLMForConditionalGeneration": "chatglm",
}


def layout_of(folder: Path) -> Layout | None:
    """The layout of an original model's folder; None for a model that transformers has a class for.

    Raises:
        ModelError: config.json lacks a size or asks for what no class of transformers computes; the message says which.
    """
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    named = config.get("architectures") or [""]
    family = LEGACY_ARCHITECTURES.get(named[0] if isinstance(named, list) and isinstance(named[0], str) else "")
    if family is None or config.get("model_type", family) != family:
        return None
    return LAYOUTS[family](Config(config, file))


class Config:
    """config.json of an original model, read with complaints."""

    def __init__(self, values: dict[str, Any], file: Path) -> None:
        self.values = values
        self.file = file

    def size(self, key: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= MOST:
            raise ModelError(f"{self.file}: {key!r} is {value!r}, wanted a whole number; fetch the folder again.")
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise ModelError(f"{self.file}: {key!r} is {value!r}, wanted a number above 0; fetch the folder again.")
        return float(value)

    def require(self, reason: str, **wanted: Any) -> None:
        """Refuse settings other than the ones given; a missing one is as wanted."""
        for key, value in wanted.items():
            if self.values.get(key, value) != value:
                raise ModelError(
                    f"{self.file}: {key} is {self.values[key]!r}, wanted {value!r}: {reason}, which no class of "
                    "transformers computes. Take another model of the family."
                )

    def heads(self) -> tuple[int, int]:
        """Number of attention heads, and the size of one."""
        hidden, count = self.size("hidden_size"), self.size("num_attention_heads")
        if hidden % count:
            raise ModelError(f"{self.file}: hidden_size {hidden} is not a multiple of num_attention_heads {count}.")
        return count, hidden // count

    def to(self, model_type: str, architecture: str, **values: Any) -> dict[str, Any]:
        """config.json of transformers' class: what both have, and `values`."""
        kept = ("vocab_size", "hidden_size", "bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
        dtype = self.values.get("torch_dtype", self.values.get("dtype", "bfloat16"))
        return {
            "architectures": [architecture],
            "model_type": model_type,
            **{key: self.values[key] for key in kept if key in self.values},
            "hidden_act": "silu",
            "tie_word_embeddings": bool(self.values.get("tie_word_embeddings", False)),
            "dtype": dtype if dtype in ("float16", "bfloat16", "float32") else "bfloat16",
            **values,
        }


def _llama_config(config: Config, **values: Any) -> dict[str, Any]:
    config.require("another activation", hidden_act="silu")
    heads, _ = config.heads()
    return config.to(
        "llama",
        "LlamaForCausalLM",
        intermediate_size=config.size("intermediate_size"),
        num_hidden_layers=config.size("num_hidden_layers"),
        num_attention_heads=heads,
        max_position_embeddings=config.size("max_position_embeddings", 2048),
        rms_norm_eps=config.number("rms_norm_eps", 1e-6),
        **{"num_key_value_heads": heads, "attention_bias": False, "mlp_bias": False, **values},
    )


def _ends(config: Config, embedding: str, norm: str, head: str, unit_rows: bool = False) -> dict[str, list[Part]]:
    """What stands before and after the layers."""
    vocab = config.size("padded_vocab_size" if "padded_vocab_size" in config.values else "vocab_size")
    hidden = config.size("hidden_size")
    return {
        embedding: whole("model.embed_tokens.weight", vocab, hidden),
        norm: whole("model.norm.weight", hidden),
        head: whole("lm_head.weight", vocab, hidden, unit_rows=unit_rows),
    }


def _norms(config: Config, first: str, second: str) -> dict[str, list[Part]]:
    hidden = config.size("hidden_size")
    return {
        first: whole("model.layers.{}.input_layernorm.weight", hidden),
        second: whole("model.layers.{}.post_attention_layernorm.weight", hidden),
    }


def _mlp(names: tuple[str, str, str], hidden: int, inner: int) -> dict[str, list[Part]]:
    """`names` are those of gate, up and down in the original."""
    gate, up, down = names
    return {
        gate: whole(f"{MLP}.gate_proj.weight", inner, hidden),
        up: whole(f"{MLP}.up_proj.weight", inner, hidden),
        down: whole(f"{MLP}.down_proj.weight", hidden, inner),
    }


def _qkv(kind: str, heights: tuple[int, int, int], *columns: int) -> list[Part]:
    """q, k and v one below the other; `kind` is "weight" or "bias"."""
    names = (f"{ATTENTION}.{letter}_proj.{kind}" for letter in "qkv")
    return stacked(columns, **dict(zip(names, heights, strict=True)))


def internlm(config: Config) -> Layout:
    """InternLM 1: Llama with biases on the four projections of attention."""
    hidden, inner, bias = config.size("hidden_size"), config.size("intermediate_size"), config.values.get("bias", True)
    layer = {f"{ATTENTION}.{x}_proj.weight": whole(f"{ATTENTION}.{x}_proj.weight", hidden, hidden) for x in "qkvo"}
    if bias:
        layer |= {f"{ATTENTION}.{x}_proj.bias": whole(f"{ATTENTION}.{x}_proj.bias", hidden) for x in "qkvo"}
    layer |= _mlp(LLAMA_MLP, hidden, inner)
    layer |= _norms(config, *LLAMA_NORMS)
    rotary = config.values.get("rotary") or {}
    new = _llama_config(config, attention_bias=bool(bias), rope_theta=float(rotary.get("base", 10000)))
    ends = _ends(config, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    return Layout(new, {**ends, **for_layers(layer, new["num_hidden_layers"])})


def internlm2(config: Config) -> Layout:
    """InternLM 2 and 2.5: q, k and v of each key-value head lie together in `wqkv`."""
    heads, size = config.heads()
    groups = config.size("num_key_value_heads", heads)
    if heads % groups:
        raise ModelError(f"{config.file}: {heads} heads are not a multiple of num_key_value_heads {groups}.")
    hidden, inner, per = config.size("hidden_size"), config.size("intermediate_size"), heads // groups
    block = (per + 2) * size
    rows = {
        "q": tuple((g * block, g * block + per * size) for g in range(groups)),
        "k": tuple((g * block + per * size, g * block + (per + 1) * size) for g in range(groups)),
        "v": tuple((g * block + (per + 1) * size, (g + 1) * block) for g in range(groups)),
    }

    def parts(kind: str, *columns: int) -> list[Part]:
        heights = {"q": heads * size, "k": groups * size, "v": groups * size}
        return [Part(f"{ATTENTION}.{x}_proj.{kind}", (heights[x], *columns), rows[x]) for x in "qkv"]

    bias, prefix = bool(config.values.get("bias", False)), "model.layers.{}."
    layer = {f"{prefix}attention.wqkv.weight": parts("weight", hidden)}
    layer[f"{prefix}attention.wo.weight"] = whole(f"{ATTENTION}.o_proj.weight", hidden, hidden)
    if bias:
        layer[f"{prefix}attention.wqkv.bias"] = parts("bias")
        layer[f"{prefix}attention.wo.bias"] = whole(f"{ATTENTION}.o_proj.bias", hidden)
    feed = f"{prefix}feed_forward"
    layer |= _mlp((f"{feed}.w1.weight", f"{feed}.w3.weight", f"{feed}.w2.weight"), hidden, inner)
    layer |= _norms(config, f"{prefix}attention_norm.weight", f"{prefix}ffn_norm.weight")
    new = _llama_config(
        config,
        num_key_value_heads=groups,
        attention_bias=bias,
        rope_theta=config.number("rope_theta", 10000),
        **_rope_scaling(config),
    )
    ends = _ends(config, "model.tok_embeddings.weight", "model.norm.weight", "output.weight")
    return Layout(new, {**ends, **for_layers(layer, new["num_hidden_layers"])})


def _rope_scaling(config: Config) -> dict[str, Any]:
    """InternLM 2's dynamic NTK and linear scaling are transformers' own."""
    scaling = config.values.get("rope_scaling")
    if scaling is None:
        return {}
    kind = scaling.get("type", scaling.get("rope_type")) if isinstance(scaling, dict) else None
    if kind not in ("dynamic", "linear"):
        raise ModelError(f"{config.file}: rope_scaling is {kind!r}, wanted 'dynamic' or 'linear'; fetch it again.")
    return {"rope_scaling": {"rope_type": kind, "factor": Config(scaling, config.file).number("factor", 1.0)}}


def baichuan(config: Config) -> Layout:
    """Baichuan 7B and Baichuan 2 7B: Llama with `W_pack`; Baichuan 2 divides each row of its head by its norm."""
    if "max_position_embeddings" not in config.values:
        raise ModelError(
            f"{config.file}: Baichuan 13B has ALiBi in place of rotary positions, which no class of transformers has; "
            "take Baichuan 7B or another family."
        )
    hidden, inner = config.size("hidden_size"), config.size("intermediate_size")
    prefix = "model.layers.{}."
    layer = {
        f"{prefix}self_attn.W_pack.weight": _qkv("weight", (hidden, hidden, hidden), hidden),
        f"{prefix}self_attn.o_proj.weight": whole(f"{ATTENTION}.o_proj.weight", hidden, hidden),
        **_mlp(LLAMA_MLP, hidden, inner),
        **_norms(config, *LLAMA_NORMS),
    }
    new = _llama_config(config, rope_theta=config.number("rope_theta", 10000))
    second = config.values["architectures"][0] == "BaichuanForCausalLM"  # the first is BaiChuanForCausalLM
    ends = _ends(config, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", unit_rows=second)
    return Layout(new, {**ends, **for_layers(layer, new["num_hidden_layers"])})


def qwen(config: Config) -> Layout:
    """Qwen 1: Qwen2 with q, k and v in `c_attn`; its `w2` is the gate, and intermediate_size counts both."""
    config.require("biases on all layers", no_bias=True)
    config.require("rotary positions on a part of each head", rotary_pct=1.0)
    config.require("unscaled attention", scale_attn_weights=True)
    heads, size = config.heads()
    config.require("heads of another size", kv_channels=size)
    hidden, inner = config.size("hidden_size"), config.size("intermediate_size") // 2
    prefix = "transformer.h.{}."
    layer = {
        f"{prefix}attn.c_attn.weight": _qkv("weight", (hidden, hidden, hidden), hidden),
        f"{prefix}attn.c_attn.bias": _qkv("bias", (hidden, hidden, hidden)),
        f"{prefix}attn.c_proj.weight": whole(f"{ATTENTION}.o_proj.weight", hidden, hidden),
        **_mlp((f"{prefix}mlp.w2.weight", f"{prefix}mlp.w1.weight", f"{prefix}mlp.c_proj.weight"), hidden, inner),
        **_norms(config, f"{prefix}ln_1.weight", f"{prefix}ln_2.weight"),
    }
    new = config.to(
        "qwen2",
        "Qwen2ForCausalLM",
        intermediate_size=inner,
        num_hidden_layers=config.size("num_hidden_layers"),
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=config.size("seq_length", config.values.get("max_position_embeddings")),
        rms_norm_eps=config.number("layer_norm_epsilon", 1e-6),
        rope_theta=config.number("rotary_emb_base", 10000),
        use_sliding_window=False,
    )
    ends = _ends(config, "transformer.wte.weight", "transformer.ln_f.weight", "lm_head.weight")
    return Layout(new, {**ends, **for_layers(layer, new["num_hidden_layers"])})


def chatglm(config: Config) -> Layout:
    """ChatGLM2 and 3: Glm with q, k and v one below the other; the first ChatGLM is another model."""
    config.require("ChatGLM 1's positions in two dimensions", position_encoding_2d=False)
    config.require("another norm", rmsnorm=True, post_layer_norm=True, apply_residual_connection_post_layernorm=False)
    config.require("other biases", add_bias_linear=False, add_qkv_bias=True)
    config.require("other heads", multi_query_attention=True)
    config.require("other rotary positions", original_rope=True, rope_ratio=1)
    config.require("a prefix that P-tuning v2 trained", pre_seq_len=None)
    hidden, inner, size = config.size("hidden_size"), config.size("ffn_hidden_size"), config.size("kv_channels", 128)
    heads, groups = config.size("num_attention_heads"), config.size("multi_query_group_num")
    heights, prefix = (heads * size, groups * size, groups * size), "transformer.encoder.layers.{}."
    layer = {
        f"{prefix}self_attention.query_key_value.weight": _qkv("weight", heights, hidden),
        f"{prefix}self_attention.query_key_value.bias": _qkv("bias", heights),
        f"{prefix}self_attention.dense.weight": whole(f"{ATTENTION}.o_proj.weight", hidden, heads * size),
        f"{prefix}mlp.dense_h_to_4h.weight": whole(f"{MLP}.gate_up_proj.weight", 2 * inner, hidden),
        f"{prefix}mlp.dense_4h_to_h.weight": whole(f"{MLP}.down_proj.weight", hidden, inner),
        **_norms(config, f"{prefix}input_layernorm.weight", f"{prefix}post_attention_layernorm.weight"),
    }
    new = config.to(
        "glm",
        "GlmForCausalLM",
        vocab_size=config.size("padded_vocab_size"),
        intermediate_size=inner,
        num_hidden_layers=config.size("num_layers"),
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=size,
        max_position_embeddings=config.size("seq_length"),
        rms_norm_eps=config.number("layernorm_epsilon", 1e-5),
        rope_theta=10000.0,
        partial_rotary_factor=0.5,
        attention_bias=True,
    )
    new = {"eos_token_id": 2, "pad_token_id": 0, **{key: value for key, value in new.items() if value is not None}}
    ends = _ends(
        config,
        "transformer.embedding.word_embeddings.weight",
        "transformer.encoder.final_layernorm.weight",
        "transformer.output_layer.weight",
    )
    return Layout(new, {**ends, **for_layers(layer, new["num_hidden_layers"])})


LAYOUTS: dict[str, Callable[[Config], Layout]] = {
    "internlm": internlm,
    "internlm2": internlm2,
    "baichuan": baichuan,
    "qwen": qwen,
    "chatglm": chatglm,
}
