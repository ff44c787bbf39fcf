"""Tokenizers that came with code of their own, rebuilt from their vocabulary files as fast ones with the same ids.

InternLM, Baichuan and ChatGLM bring a sentencepiece model (`tokenizer.model`, BPE), Qwen 1 tiktoken's list of ranks
(`*.tiktoken`: a token in base64 and its rank on each line). Neither file holds code.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.errors import ModelError
from medtune.files import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SENTENCEPIECE = ("InternLMTokenizer", "InternLM2Tokenizer", "BaiChuanTokenizer", "BaichuanTokenizer")
CHATGLM, QWEN = "ChatGLMTokenizer", "QWenTokenizer"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")  # of ChatGLM 3, and harmless in 2
CHATGLM_TOKENS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", *ROLES)  # in the order of their ids
QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
NORMAL, USER_DEFINED = 1, 4  # kinds of sentencepiece's pieces
SPACE = "▁"  # sentencepiece's sign for a space


def original_tokenizer(folder: Path) -> PreTrainedTokenizerFast | None:
    """The tokenizer of an original model's folder; None if transformers has a class for what is there.

    Raises:
        ModelError: its vocabulary file is damaged, or of another kind.
    """
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    kind = settings.get("tokenizer_class")
    if (folder / "tokenizer.json").is_file() or kind not in (*SENTENCEPIECE, CHATGLM, QWEN):
        return None
    if kind == QWEN:
        return _qwen(folder, settings)
    return _sentencepiece(folder, settings, kind == CHATGLM)


def _sentencepiece(folder: Path, settings: dict[str, Any], is_chatglm: bool) -> PreTrainedTokenizerFast:
    file = folder / "tokenizer.model"
    model = _read_model(file)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    names |= {name: found for name in names if (found := _text_of(settings.get(name)))}
    tokenizer = _bpe(model, names["unk_token"])
    specials = dict.fromkeys(names[name] for name in ("unk_token", "bos_token", "eos_token"))
    wanted = dict(enumerate(CHATGLM_TOKENS, len(model.pieces))) if is_chatglm else {}
    _add(tokenizer, specials, {**wanted, **_declared(settings)}, file)
    prefix = [names["bos_token"]] if settings.get("add_bos_token", True) else []
    return _fast(tokenizer, settings, ["[gMASK]", "sop"] if is_chatglm else prefix, **names)


def _read_model(file: Path) -> Any:
    """sentencepiece's protocol buffer."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2 as format_of

    model = format_of.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(file.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; fetch the tokenizer's files again.") from None
    except DecodeError:
        raise ModelError(f"{file}: not a sentencepiece model, or damaged; fetch it again.") from None
    if model.trainer_spec.model_type != 2 or not model.pieces:
        raise ModelError(f"{file}: wanted a sentencepiece model of the kind BPE; fetch it again.")
    return model


def _bpe(model: Any, unknown: str) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers

    vocabulary = {piece.piece: i for i, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == NORMAL}
    merges = _merges({piece: (-score, vocabulary[piece]) for piece, score in scores.items()}, vocabulary)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    own = [piece.piece for piece in model.pieces if piece.type == USER_DEFINED]
    rules = model.normalizer_spec
    steps: list[Any] = []
    if rules.precompiled_charsmap:
        steps.append(normalizers.Precompiled(rules.precompiled_charsmap))
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:  # once in front of a text, but not of the pieces that are looked up in it
        but = "|".join(re.escape(piece) for piece in own)
        steps.append(
            normalizers.Replace(Regex(rf"\A(?!(?:{but})\z)(?=.|\n)"), SPACE) if own else normalizers.Prepend(SPACE)
        )
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    tokenizer.add_tokens([AddedToken(piece, normalized=True, special=False) for piece in own])
    ends = [decoders.Strip(content=" ", left=1)] if rules.add_dummy_prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return tokenizer


def _merges(order: Mapping[Any, Any], known: Mapping[Any, int]) -> list[tuple[Any, Any]]:
    """Every way to make a token of two known ones, the tokens by `order`: both libraries merge what comes first."""
    found = [
        (rank, known[token[:i]], known[token[i:]], token[:i], token[i:])
        for token, rank in order.items()
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
    ]
    return [(left, right) for _, _, _, left, right in sorted(found, key=lambda entry: entry[:3])]


def _qwen(folder: Path, settings: dict[str, Any]) -> PreTrainedTokenizerFast:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    file = folder / "qwen.tiktoken"
    ranks = _read_ranks(file)
    letters = bytes_to_unicode()

    def written(token: bytes) -> str:
        return "".join(letters[byte] for byte in token)

    merges = [(written(left), written(right)) for left, right in _merges(ranks, ranks)]
    vocabulary = {written(token): rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _add(tokenizer, (), dict(enumerate(QWEN_TOKENS, len(ranks))), file)
    return _fast(tokenizer, settings, [], eos_token=QWEN_TOKENS[0], pad_token=QWEN_TOKENS[0])


def _read_ranks(file: Path) -> dict[bytes, int]:
    try:
        lines = [line.split() for line in file.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in lines}
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; fetch the tokenizer's files again.") from None
    except ValueError:
        raise ModelError(f"{file}: wanted a token in base64 and its rank on each line; fetch it again.") from None
    if sorted(ranks.values()) != list(range(len(ranks))) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise ModelError(f"{file}: its ranks have gaps, or a byte is missing; fetch it again.")
    return ranks


def _text_of(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _declared(settings: dict[str, Any]) -> dict[int, str]:
    """What tokenizer_config.json lists as added, by id."""
    listed = settings.get("added_tokens_decoder") or {}
    return {int(i): text for i, token in listed.items() if str(i).isdigit() and (text := _text_of(token))}


def _add(tokenizer: Tokenizer, specials: Iterable[str], wanted: Mapping[int, str], file: Path) -> None:
    """Make tokens special, those beyond the vocabulary under the ids that their authors gave them."""
    from tokenizers import AddedToken

    tokens = [*specials, *(wanted[i] for i in sorted(wanted))]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in tokens])
    for number, token in wanted.items():
        if tokenizer.token_to_id(token) != number:
            raise ModelError(f"{file}: {token!r} cannot have the id {number} beside these tokens; fetch it again.")


def _fast(tokenizer: Tokenizer, settings: dict[str, Any], prefix: list[str], **names: str) -> PreTrainedTokenizerFast:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if prefix:
        ids = [(token, tokenizer.token_to_id(token)) for token in prefix]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*prefix, "$A"], pair=[*prefix, "$A", "$B"], special_tokens=ids
        )
    template = settings.get("chat_template")
    chat = {"chat_template": template} if isinstance(template, str) else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names, **chat)
