"""The generation path against transformers' own, against itself one by one, and its text stream."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.errors import DataError, EnvironmentFault, UsageError
from medtune.generate import Sampling, TextStream, _left_pad, add_stops, context_length, generate

QUESTIONS = ["What is aspirin for?", "阿司匹林的常用剂量是多少？请说明注意事项。", "Hi"]
GREEDY = Sampling(max_new_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def model(tiny_model_path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer):
    chats = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in QUESTIONS]
    return [tiny_tokenizer(chat, add_special_tokens=False).input_ids for chat in chats]


@pytest.fixture(scope="module")
def greedy(model, tiny_tokenizer, prompts):
    """Each prompt answered alone."""
    return [generate(model, tiny_tokenizer, [prompt], GREEDY)[0] for prompt in prompts]


def little_llama(**config):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=12288, initializer_range=0.5, **sizes, **config))


def test_a_batch_answers_as_each_prompt_alone_does(model, tiny_tokenizer, prompts, greedy):
    """T13: fails when prompts are padded on the right, or positions count the padding."""
    together = generate(model, tiny_tokenizer, prompts, GREEDY)
    assert len({len(prompt) for prompt in prompts}) == 3
    for batched, alone in zip(together, greedy, strict=True):
        assert batched.token_ids == alone.token_ids
        assert batched.text == alone.text
        assert batched.log_probs == pytest.approx(alone.log_probs, abs=1e-4)


def test_the_repetition_penalty_does_not_see_the_padding(model, tiny_tokenizer, prompts):
    penalised = Sampling(max_new_tokens=12, temperature=0, repetition_penalty=1.8)
    together = generate(model, tiny_tokenizer, prompts, penalised)
    alone = [generate(model, tiny_tokenizer, [prompt], penalised)[0] for prompt in prompts]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]


def test_our_attention_answers_a_padded_batch_as_transformers_own_does(tiny_tokenizer, prompts, greedy):
    from medtune.models.load import load_llm

    together = generate(load_llm("med-llama-tiny", device="cpu"), tiny_tokenizer, prompts, GREEDY)
    assert [c.token_ids for c in together] == [c.token_ids for c in greedy]


def test_a_sliding_window_is_kept_in_a_padded_batch(tiny_tokenizer):
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MistralConfig(vocab_size=12288, initializer_range=0.5, num_key_value_heads=1, sliding_window=4, **sizes)
    model = MistralForCausalLM(config).eval()
    prompts = [[20], list(range(30, 42)), [50, 51, 52]]
    for prompt, completion in zip(prompts, generate(model, tiny_tokenizer, prompts, GREEDY), strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        with torch.no_grad():
            wanted = model(ids).logits[0, len(prompt) - 1 : -1].argmax(-1)
        assert completion.token_ids == wanted.tolist()


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_answers_equal_those_of_transformers(model, tiny_tokenizer, prompts, penalty):
    ours = generate(model, tiny_tokenizer, prompts, Sampling(12, temperature=0, repetition_penalty=penalty))
    for prompt, completion in zip(prompts, ours, strict=True):
        theirs = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=tiny_tokenizer.vocab_size + 1,
            pad_token_id=3,
        )
        assert completion.token_ids == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_log_probs_are_those_of_a_full_forward_at_temperature_one(model, tiny_tokenizer, prompts, temperature):
    sampling = Sampling(10, temperature, top_k=5, top_p=0.9, repetition_penalty=1.2, seed=3)
    for prompt, completion in zip(prompts, generate(model, tiny_tokenizer, prompts, sampling), strict=True):
        ids = torch.tensor([prompt + completion.token_ids])
        with torch.no_grad():
            full = model(ids).logits[0].log_softmax(-1)
        wanted = full[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]
        assert completion.log_probs == pytest.approx(wanted.tolist(), abs=1e-4)


def test_one_seed_gives_one_answer_and_leaves_the_global_random_state_alone(model, tiny_tokenizer, prompts):
    def answer(seed):
        sampling = Sampling(12, temperature=2.0, top_k=0, top_p=1.0, seed=seed)
        return generate(model, tiny_tokenizer, prompts[:1], sampling)[0].token_ids

    state = torch.get_rng_state()
    assert answer(1) == answer(1)
    assert answer(1) != answer(2)
    assert answer(None) != answer(None)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("cut", [{"top_k": 1, "top_p": 1.0}, {"top_k": 0, "top_p": 1e-6}, {"temperature": 1e-4}])
def test_each_cut_of_the_distribution_is_honoured(model, tiny_tokenizer, prompts, greedy, cut):
    sampling = Sampling(**{"max_new_tokens": 12, "temperature": 5.0, "seed": 0, **cut})
    assert generate(model, tiny_tokenizer, prompts[:1], sampling)[0].token_ids == greedy[0].token_ids


def test_a_stop_token_ends_its_own_row_alone_and_is_not_in_the_answer(model, tiny_tokenizer, prompts, greedy):
    others = set(greedy[1].token_ids) | set(greedy[2].token_ids)
    at, stop = next((i, t) for i, t in enumerate(greedy[0].token_ids) if i > 0 and t not in others)
    sampling = Sampling(12, temperature=0, stop_token_ids=frozenset({stop}))
    first, *rest = generate(model, tiny_tokenizer, prompts, sampling)
    assert first.finish_reason == "stop"
    assert first.token_ids == greedy[0].token_ids[: greedy[0].token_ids.index(stop)]
    assert len(first.log_probs) == len(first.token_ids) <= at
    assert [c.token_ids for c in rest] == [c.token_ids for c in greedy[1:]]
    assert {c.finish_reason for c in rest} == {"length"}


def test_a_stop_string_is_cut_from_the_text(model, tiny_tokenizer, prompts, greedy):
    stop = greedy[0].text[4:9]
    pieces = []
    sampling = Sampling(12, temperature=0, stop_strings=(stop,))
    (completion,) = generate(
        model, tiny_tokenizer, prompts[:1], sampling, on_text=lambda row, text: pieces.append((row, text))
    )
    assert completion.finish_reason == "stop"
    assert completion.text == greedy[0].text.split(stop)[0]
    assert "".join(text for _, text in pieces) == completion.text
    assert {row for row, _ in pieces} == {0}


def test_a_stop_string_that_is_a_special_token_stops_on_the_token(tiny_tokenizer):
    model = little_llama()
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[end] = 1e-9
    prompt = next([t] for t in range(20, 99) if model(torch.tensor([[t]])).logits[0, -1].argmax() == end)
    (completion,) = generate(model, tiny_tokenizer, [prompt], Sampling(5, 0, stop_strings=("<|im_end|>",)))
    assert (completion.token_ids, completion.finish_reason) == ([], "stop")


def test_an_interrupted_answer_keeps_what_it_has(model, tiny_tokenizer, prompts, greedy):
    seen = []
    completions = generate(
        model,
        tiny_tokenizer,
        prompts[:2],
        GREEDY,
        on_token=lambda row, token: seen.append((row, token)),
        should_stop=lambda: len(seen) >= 8,
    )
    for row, completion in enumerate(completions):
        assert completion.finish_reason == "interrupted"
        assert completion.token_ids == greedy[row].token_ids[:4] == [token for r, token in seen if r == row]
        assert greedy[row].text.startswith(completion.text) and completion.text


def test_padding_is_made_of_the_rows_own_tokens_for_the_repetition_penalty():
    ids, mask = _left_pad([[7, 8], [9]])
    assert ids.tolist() == [[7, 8], [9, 9]] and mask.tolist() == [[1, 1], [0, 1]]


def test_an_answer_ends_where_the_context_ends_also_in_a_batch_with_learned_positions(tiny_tokenizer):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=12288, initializer_range=0.5, **sizes)).eval()
    assert context_length(model) == 16
    long, short = generate(model, tiny_tokenizer, [list(range(20, 34)), [20, 21]], GREEDY)
    assert (len(long.token_ids), long.finish_reason) == (2, "length")
    assert short.token_ids == generate(model, tiny_tokenizer, [[20, 21]], GREEDY)[0].token_ids


@pytest.mark.parametrize(("prompt", "words"), [(list(range(20, 36)), "16 tokens"), ([], "empty")])
def test_a_prompt_that_cannot_be_answered_is_a_data_error(tiny_tokenizer, prompt, words):
    model = little_llama(max_position_embeddings=16)
    with pytest.raises(DataError, match=words):
        generate(model, tiny_tokenizer, [[20], prompt], GREEDY)


def test_no_prompts_give_no_answers(model, tiny_tokenizer):
    assert generate(model, tiny_tokenizer, [], GREEDY) == []


def test_each_module_gets_its_own_mode_back_and_checkpointing_keeps_the_cache(tiny_tokenizer, monkeypatch):
    model = little_llama(use_cache=False)
    wanted = generate(model, tiny_tokenizer, [[20, 21, 22]], GREEDY)[0].token_ids
    model.gradient_checkpointing_enable()
    model.train()
    model.model.norm.eval()
    lengths = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    assert generate(model, tiny_tokenizer, [[20, 21, 22]], GREEDY)[0].token_ids == wanted
    assert lengths == [3] + [1] * 11
    assert model.training and model.model.layers[0].training and not model.model.norm.training
    assert model.is_gradient_checkpointing

    monkeypatch.setattr(model, "forward", lambda **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, tiny_tokenizer, [[20]], GREEDY)
    assert model.training and not model.model.norm.training


def test_a_peft_model_answers_with_its_adapter(tiny_tokenizer):
    from peft import LoraConfig, get_peft_model

    base = generate(little_llama(), tiny_tokenizer, [[20, 21], [30]], GREEDY)
    torch.manual_seed(1)
    tuned = get_peft_model(
        little_llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    answers = generate(tuned, tiny_tokenizer, [[20, 21], [30]], GREEDY)
    merged = generate(tuned.merge_and_unload(), tiny_tokenizer, [[20, 21], [30]], GREEDY)
    assert [c.token_ids for c in answers] == [c.token_ids for c in merged]
    assert [c.token_ids for c in answers] != [c.token_ids for c in base]


def test_logits_that_are_not_numbers_are_a_fault_with_advice(tiny_tokenizer):
    model = little_llama()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(EnvironmentFault, match="bf16"):
        generate(model, tiny_tokenizer, [[20]], Sampling(2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"repetition_penalty": 0},
    ],
)
def test_a_sampling_value_out_of_range_is_a_usage_error_that_names_it(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_the_models_own_end_tokens_and_the_users_words_become_stops(model, tiny_tokenizer):
    sampling = add_stops(Sampling(stop_strings=("a",)), model, tiny_tokenizer, words=("b", "a"))
    assert sampling.stop_token_ids == {0, 2}  # generation_config.json of med-llama-tiny
    assert sampling.stop_strings == ("a", "b")


# TextStream


@pytest.fixture(scope="module")
def byte_fallback_tokenizer():
    """A little Llama-2 kind of tokenizer: words begin with ▁, what is unknown is spelt in bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcde中文，", "▁a", "▁b", "ab", "▁ab"]
    merges = [("▁", "a"), ("▁", "b"), ("a", "b"), ("▁", "ab")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    raw = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens([AddedToken("<s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>")


TEXTS = st.text(alphabet=st.sampled_from("ab c，。中文药剂量\n龘😀é👩‍⚕️#"), max_size=30)


def check_stream(tokenizer, text, stop=None):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    stream = TextStream(tokenizer, [stop] if stop else [])
    pieces = []
    for token in ids:
        pieces.append(stream.push([token]))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == stream.text == (whole.split(stop)[0] if stop else whole)
    assert stream.stopped == (bool(stop) and stop in whole)
    assert not any("\ufffd" in piece for piece in pieces)
    return pieces


@settings(max_examples=150, deadline=None)
@given(text=TEXTS)
def test_streamed_text_is_the_whole_text_in_whole_characters(tiny_tokenizer, byte_fallback_tokenizer, text):
    check_stream(tiny_tokenizer, text)
    check_stream(byte_fallback_tokenizer, text)


@settings(max_examples=150, deadline=None)
@given(before=TEXTS, after=TEXTS, stop=st.sampled_from(["##", "#。#", "ab", "中文", "\n\n", "😀"]))
def test_no_part_of_a_stop_string_is_given_out(tiny_tokenizer, byte_fallback_tokenizer, before, after, stop):
    check_stream(tiny_tokenizer, before + stop + after, stop)
    check_stream(byte_fallback_tokenizer, before + stop + after, stop)


def test_a_rare_chinese_character_comes_out_in_one_piece(tiny_tokenizer, byte_fallback_tokenizer):
    for tokenizer in (tiny_tokenizer, byte_fallback_tokenizer):
        pieces = check_stream(tokenizer, "ab 龘")
        assert len(tokenizer("龘", add_special_tokens=False).input_ids) >= 2
        assert [piece for piece in pieces if "龘" in piece] == [pieces[-2]]


def test_of_several_stop_strings_the_first_in_the_text_counts(tiny_tokenizer):
    stream = TextStream(tiny_tokenizer, ["yes", "no"])
    stream.push(tiny_tokenizer("well no yes", add_special_tokens=False).input_ids)
    assert (stream.text, stream.stopped, stream.finish()) == ("well ", True, "")


def test_an_unfinished_stop_string_at_the_end_is_text_after_all(tiny_tokenizer):
    pieces = check_stream(tiny_tokenizer, "a #", "##")
    assert pieces[-1].endswith("#")


def test_an_answer_cut_inside_a_character_ends_before_it(tiny_tokenizer):
    stream = TextStream(tiny_tokenizer)
    ids = tiny_tokenizer("ab 龘", add_special_tokens=False).input_ids
    for token in ids[:-1]:
        stream.push([token])
    stream.finish()
    assert stream.text.strip() == "ab"


def test_special_tokens_never_show(tiny_tokenizer):
    ids = tiny_tokenizer("<|im_start|>a b<|im_end|> c", add_special_tokens=False).input_ids
    stream = TextStream(tiny_tokenizer)
    assert "".join([*(stream.push([token]) for token in ids), stream.finish()]) == "a b c"


def test_tokens_pushed_together_give_what_they_give_one_by_one(tiny_tokenizer):
    text = "服用阿司匹林 100 mg，每日一次。龘😀" * 3
    ids = tiny_tokenizer(text, add_special_tokens=False).input_ids
    rng = random.Random(0)
    stream = TextStream(tiny_tokenizer)
    while ids:
        size = rng.randint(1, 5)
        stream.push(ids[:size])
        ids = ids[size:]
    stream.finish()
    assert stream.text == text
