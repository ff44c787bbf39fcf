"""Two-layer random models as their authors stored them, and their published arithmetic in plain torch.

Each `*_logits` follows the modelling file of the model's repository step by step: (1, T) ids to (1, T, V) logits.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VOCAB, HIDDEN, INNER, HEADS, LAYERS = 96, 32, 48, 4, 2
SIZE = HIDDEN // HEADS
COMMON = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "vocab_size": VOCAB, "torch_dtype": "float32"}
LLAMA = {"num_hidden_layers": LAYERS, "intermediate_size": INNER, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
LLAMA |= {"max_position_embeddings": 128, "tie_word_embeddings": False, **COMMON}
CODE = {"AutoModelForCausalLM": "modeling_evil.Evil"}
Weights = dict[str, torch.Tensor]


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def angles(length: int, size: int, base: float) -> torch.Tensor:
    """(T, size / 2)"""
    return torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, size, 2).float() / size))


def rotate_halves(x: torch.Tensor, base: float) -> torch.Tensor:
    """(H, T, D): dimension i turns with i + D/2, as Llama's, InternLM's, Baichuan's and Qwen's do."""
    angle = angles(x.shape[1], x.shape[2], base)
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def rotate_pairs_of_first_half(x: torch.Tensor) -> torch.Tensor:
    """(H, T, D): ChatGLM turns neighbours, and only the first half of each head; the rest passes."""
    turned, passed = x.chunk(2, dim=-1)
    angle = angles(x.shape[1], turned.shape[-1], 10000.0)
    cos, sin = angle.cos(), angle.sin()
    pairs = turned.reshape(*turned.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    return torch.cat([torch.stack([even * cos - odd * sin, odd * cos + even * sin], -1).flatten(-2), passed], -1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(H, T, D) each to (T, H D), causal."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(future, -math.inf).softmax(-1) @ v).transpose(0, 1).flatten(1)


def heads_of(x: torch.Tensor, count: int) -> torch.Tensor:
    """(T, H D) to (H, T, D)"""
    return x.reshape(len(x), count, -1).transpose(0, 1)


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    generator = torch.Generator().manual_seed(seed)
    made = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {name: 1 + weight if "norm" in name or "ln_" in name else weight for name, weight in made.items()}


def llama_shapes(layer: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    shapes["model.norm.weight"] = (HIDDEN,)
    mlp = {"mlp.gate_proj.weight": (INNER, HIDDEN), "mlp.up_proj.weight": (INNER, HIDDEN)}
    mlp |= {"mlp.down_proj.weight": (HIDDEN, INNER), "input_layernorm.weight": (HIDDEN,)}
    layer = {**layer, **mlp, "post_attention_layernorm.weight": (HIDDEN,)}
    return shapes | {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}


def llama_mlp(x: torch.Tensor, w: Weights, p: str) -> torch.Tensor:
    gate, up = F.silu(x @ w[p + "mlp.gate_proj.weight"].T), x @ w[p + "mlp.up_proj.weight"].T
    return (gate * up) @ w[p + "mlp.down_proj.weight"].T


# ---------------------------------------------------------------- InternLM 1

INTERNLM = {"architectures": ["InternLMForCausalLM"], "model_type": "internlm", "bias": True, **LLAMA}


def internlm_weights() -> Weights:
    projections = {f"self_attn.{x}_proj.weight": (HIDDEN, HIDDEN) for x in "qkvo"}
    return draw(llama_shapes({**projections, **{f"self_attn.{x}_proj.bias": (HIDDEN,) for x in "qkvo"}}))


def internlm_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    x = w["model.embed_tokens.weight"][ids[0]]
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        y = rms(x, w[p + "input_layernorm.weight"])
        q, k, v = (y @ w[p + f"self_attn.{n}_proj.weight"].T + w[p + f"self_attn.{n}_proj.bias"] for n in "qkv")
        q, k, v = (heads_of(z, HEADS) for z in (q, k, v))
        mixed = attend(rotate_halves(q, 10000.0), rotate_halves(k, 10000.0), v)
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T + w[p + "self_attn.o_proj.bias"]
        x = x + llama_mlp(rms(x, w[p + "post_attention_layernorm.weight"]), w, p)
    return (rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T)[None]


# ---------------------------------------------------------------- InternLM 2

GROUPS = 2
INTERNLM2 = {"architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "bias": False, **LLAMA}
INTERNLM2 |= {"num_key_value_heads": GROUPS, "rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 2.0}}


def internlm2_weights() -> Weights:
    layer = {"attention.wqkv.weight": ((HEADS + 2 * GROUPS) * SIZE, HIDDEN), "attention.wo.weight": (HIDDEN, HIDDEN)}
    layer |= {"feed_forward.w1.weight": (INNER, HIDDEN), "feed_forward.w3.weight": (INNER, HIDDEN)}
    layer |= {
        "feed_forward.w2.weight": (HIDDEN, INNER),
        "attention_norm.weight": (HIDDEN,),
        "ffn_norm.weight": (HIDDEN,),
    }
    ends = {"model.tok_embeddings.weight": (VOCAB, HIDDEN), "output.weight": (VOCAB, HIDDEN)}
    layers = {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    return draw({**ends, "model.norm.weight": (HIDDEN,), **layers})


def internlm2_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    x, per = w["model.tok_embeddings.weight"][ids[0]], HEADS // GROUPS
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        fused = rms(x, w[p + "attention_norm.weight"]) @ w[p + "attention.wqkv.weight"].T
        fused = fused.reshape(len(x), GROUPS, per + 2, SIZE)
        q = fused[:, :, :per].flatten(1, 2).transpose(0, 1)
        k, v = (fused[:, :, per + j].transpose(0, 1).repeat_interleave(per, dim=0) for j in (0, 1))
        x = x + attend(rotate_halves(q, 1e6), rotate_halves(k, 1e6), v) @ w[p + "attention.wo.weight"].T
        y = rms(x, w[p + "ffn_norm.weight"])
        y = F.silu(y @ w[p + "feed_forward.w1.weight"].T) * (y @ w[p + "feed_forward.w3.weight"].T)
        x = x + y @ w[p + "feed_forward.w2.weight"].T
    return (rms(x, w["model.norm.weight"]) @ w["output.weight"].T)[None]


# ---------------------------------------------------------------- Baichuan 7B, Baichuan 2 7B

BAICHUAN = {"architectures": ["BaiChuanForCausalLM"], "model_type": "baichuan", **LLAMA}
BAICHUAN2 = {**BAICHUAN, "architectures": ["BaichuanForCausalLM"]}


def baichuan_weights() -> Weights:
    return draw(
        llama_shapes({"self_attn.W_pack.weight": (3 * HIDDEN, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, HIDDEN)})
    )


def baichuan_hidden(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    x = w["model.embed_tokens.weight"][ids[0]]
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        fused = rms(x, w[p + "input_layernorm.weight"]) @ w[p + "self_attn.W_pack.weight"].T
        q, k, v = (heads_of(z, HEADS) for z in fused.unflatten(-1, (3, HIDDEN)).unbind(1))
        mixed = attend(rotate_halves(q, 10000.0), rotate_halves(k, 10000.0), v)
        x = x + mixed @ w[p + "self_attn.o_proj.weight"].T
        x = x + llama_mlp(rms(x, w[p + "post_attention_layernorm.weight"]), w, p)
    return rms(x, w["model.norm.weight"])


def baichuan_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    return (baichuan_hidden(w, ids) @ w["lm_head.weight"].T)[None]


def baichuan2_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    head = w["lm_head.weight"]
    return (baichuan_hidden(w, ids) @ (head / head.norm(dim=1, keepdim=True)).T)[None]


# ---------------------------------------------------------------- Qwen 1

QWEN = {"architectures": ["QWenLMHeadModel"], "model_type": "qwen", "num_hidden_layers": LAYERS, "kv_channels": SIZE}
QWEN |= {"intermediate_size": 2 * INNER, "seq_length": 64, "max_position_embeddings": 128, "layer_norm_epsilon": 1e-6}
QWEN |= {"rotary_emb_base": 10000, "rotary_pct": 1.0, "no_bias": True, "use_dynamic_ntk": True, "use_logn_attn": True}
QWEN |= {"scale_attn_weights": True, "tie_word_embeddings": False, **COMMON}


def qwen_weights() -> Weights:
    layer = {"attn.c_attn.weight": (3 * HIDDEN, HIDDEN), "attn.c_attn.bias": (3 * HIDDEN,)}
    layer |= {
        "attn.c_proj.weight": (HIDDEN, HIDDEN),
        "mlp.w1.weight": (INNER, HIDDEN),
        "mlp.w2.weight": (INNER, HIDDEN),
    }
    layer |= {"mlp.c_proj.weight": (HIDDEN, INNER), "ln_1.weight": (HIDDEN,), "ln_2.weight": (HIDDEN,)}
    layers = {f"transformer.h.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    ends = {"transformer.wte.weight": (VOCAB, HIDDEN), "lm_head.weight": (VOCAB, HIDDEN)}
    return draw({**ends, "transformer.ln_f.weight": (HIDDEN,), **layers})


def qwen_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    x = w["transformer.wte.weight"][ids[0]]
    for i in range(LAYERS):
        p = f"transformer.h.{i}."
        fused = rms(x, w[p + "ln_1.weight"]) @ w[p + "attn.c_attn.weight"].T + w[p + "attn.c_attn.bias"]
        q, k, v = (heads_of(z, HEADS) for z in fused.split(HIDDEN, dim=1))
        mixed = attend(rotate_halves(q, 10000.0), rotate_halves(k, 10000.0), v)
        x = x + mixed @ w[p + "attn.c_proj.weight"].T
        y = rms(x, w[p + "ln_2.weight"])
        y = (y @ w[p + "mlp.w1.weight"].T) * F.silu(y @ w[p + "mlp.w2.weight"].T)
        x = x + y @ w[p + "mlp.c_proj.weight"].T
    return (rms(x, w["transformer.ln_f.weight"]) @ w["lm_head.weight"].T)[None]


# ---------------------------------------------------------------- ChatGLM2 and 3

CHATGLM = {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "num_layers": LAYERS, "kv_channels": SIZE}
CHATGLM |= {"padded_vocab_size": VOCAB, "ffn_hidden_size": INNER, "seq_length": 128, "layernorm_epsilon": 1e-5}
CHATGLM |= {"multi_query_attention": True, "multi_query_group_num": GROUPS, "rmsnorm": True, "add_qkv_bias": True}
CHATGLM |= {"add_bias_linear": False, "post_layer_norm": True, "original_rope": True, "tie_word_embeddings": False}
CHATGLM |= {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "torch_dtype": "float32", "eos_token_id": 2}
HEIGHTS = [HEADS * SIZE, GROUPS * SIZE, GROUPS * SIZE]


def chatglm_weights() -> Weights:
    layer = {
        "self_attention.query_key_value.weight": (sum(HEIGHTS), HIDDEN),
        "mlp.dense_4h_to_h.weight": (HIDDEN, INNER),
    }
    layer |= {"self_attention.query_key_value.bias": (sum(HEIGHTS),), "self_attention.dense.weight": (HIDDEN, HIDDEN)}
    layer |= {"mlp.dense_h_to_4h.weight": (2 * INNER, HIDDEN), "input_layernorm.weight": (HIDDEN,)}
    layer |= {"post_attention_layernorm.weight": (HIDDEN,)}
    layers = {f"transformer.encoder.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer.items()}
    ends = {
        "transformer.embedding.word_embeddings.weight": (VOCAB, HIDDEN),
        "transformer.output_layer.weight": (VOCAB, HIDDEN),
    }
    weights = draw({**ends, "transformer.encoder.final_layernorm.weight": (HIDDEN,), **layers})
    return {**weights, "transformer.rotary_pos_emb.inv_freq": torch.ones(SIZE // 4)}


def chatglm_logits(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    x, per = w["transformer.embedding.word_embeddings.weight"][ids[0]], HEADS // GROUPS
    for i in range(LAYERS):
        p = f"transformer.encoder.layers.{i}."
        y = rms(x, w[p + "input_layernorm.weight"], 1e-5)
        fused = y @ w[p + "self_attention.query_key_value.weight"].T + w[p + "self_attention.query_key_value.bias"]
        q, k, v = fused.split(HEIGHTS, dim=1)
        q, k, v = heads_of(q, HEADS), heads_of(k, GROUPS), heads_of(v, GROUPS)
        q, k = rotate_pairs_of_first_half(q), rotate_pairs_of_first_half(k).repeat_interleave(per, dim=0)
        x = x + attend(q, k, v.repeat_interleave(per, dim=0)) @ w[p + "self_attention.dense.weight"].T
        y = rms(x, w[p + "post_attention_layernorm.weight"], 1e-5)
        gate, up = (y @ w[p + "mlp.dense_h_to_4h.weight"].T).chunk(2, dim=-1)
        x = x + (F.silu(gate) * up) @ w[p + "mlp.dense_4h_to_h.weight"].T
    return (rms(x, w["transformer.encoder.final_layernorm.weight"], 1e-5) @ w["transformer.output_layer.weight"].T)[
        None
    ]


ORIGINALS: dict[str, tuple[dict[str, Any], Any, Any, str]] = {
    "internlm": (INTERNLM, internlm_weights, internlm_logits, "LlamaForCausalLM"),
    "internlm2": (INTERNLM2, internlm2_weights, internlm2_logits, "LlamaForCausalLM"),
    "baichuan": (BAICHUAN, baichuan_weights, baichuan_logits, "LlamaForCausalLM"),
    "baichuan2": (BAICHUAN2, baichuan_weights, baichuan2_logits, "LlamaForCausalLM"),
    "qwen": (QWEN, qwen_weights, qwen_logits, "Qwen2ForCausalLM"),
    "chatglm": (CHATGLM, chatglm_weights, chatglm_logits, "GlmForCausalLM"),
}


def original_folder(folder: Path, family: str, as_bin: bool = False, **changes: Any) -> Path:
    """A model folder as its authors published it, with code that must never run."""
    config, weights, _, _ = ORIGINALS[family]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": CODE, **changes}))
    (folder / "modeling_evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    made = weights()
    if not as_bin:
        save_file(made, folder / "model.safetensors")
        return folder
    names = list(made)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        torch.save({name: made[name] for name in part}, folder / f"pytorch_model-{number:05d}-of-00002.bin")
    return folder
