"""The training stage against a plain transformers + PEFT computation of the same loss, and its checkpoints."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise

import pytest
import torch
from helpers import flat, padded_batch, ragged_samples, relative, run_loop, tiny_llama
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from medtune.build import check
from medtune.config import load
from medtune.data.collate import flatten
from medtune.errors import ConfigError, ModelError
from medtune.models import attention
from medtune.models.load import load_llm
from medtune.models.sft import SupervisedFinetune

LENGTHS = [12, 3, 31, 7, 20]


def lora(**changes):
    return LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})


def base(seed=0, **changes):
    model = tiny_llama(seed, **changes)
    model.set_attn_implementation(attention.NAME)
    return model


def stage(method, dtype="fp32", checkpointing=False, **changes):
    """A stage; its adapter's second half is drawn, not zero, so that all gradients are there."""
    torch.manual_seed(1)
    made = SupervisedFinetune(base(), lora(**changes) if method == "lora" else None, checkpointing, dtype)
    for name, parameter in made.trainable_parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.train()


def plain_twin(made):
    """The same weights as a plain transformers model, or PEFT model, under transformers' own attention."""
    model = tiny_llama()
    if made.has_adapter:
        model = get_peft_model(model, lora())
    model.load_state_dict(made.llm.state_dict())
    return model.train()


def plain_step(model, samples):
    """Loss per trained token and its gradient, as transformers computes them on one padded batch."""
    batch = padded_batch(samples)
    num_units = int((batch["labels"] != -100).sum())
    loss = model(**batch, num_items_in_batch=num_units).loss
    loss.backward()
    return loss.item(), {f"llm.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "activation checkpointing"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_loss_and_gradient_of_a_step_equal_plain_transformers(method, checkpointing):
    samples = ragged_samples(LENGTHS)
    made = stage(method, checkpointing=checkpointing)
    wanted_loss, wanted = plain_step(plain_twin(made), samples)
    run = run_loop(made, samples, batch_size=len(samples))
    got = run.gradients[0]
    assert got.keys() == wanted.keys()
    assert float(run.results[0].loss_sum) / run.results[0].num_units == pytest.approx(wanted_loss, rel=1e-6)
    assert relative(flat(got), flat(wanted)) < 1e-6
    assert float(run.results[0].grad_norm) == pytest.approx(float(flat(wanted).norm()), rel=1e-6)


def test_a_model_outside_our_attention_gives_the_same_loss_and_gradient_on_padded_rows():
    """T13: fails when rows are padded on the left, or logits of the padding are taken for those of the text."""
    samples = ragged_samples(LENGTHS)
    packed, padded = stage("full"), stage("full")
    padded.llm.set_attn_implementation("eager")
    padded.packed_rows = False
    runs = [run_loop(made, samples, batch_size=len(samples)) for made in (packed, padded)]
    assert float(runs[1].results[0].loss_sum) == pytest.approx(float(runs[0].results[0].loss_sum), rel=1e-6)
    assert relative(flat(runs[1].gradients[0]), flat(runs[0].gradients[0])) < 1e-6


def test_a_model_that_cannot_choose_its_logits_gives_the_same_loss():
    micro = flatten(ragged_samples(LENGTHS))
    made = stage("full")
    wanted = made(micro).loss_sum
    made.keeps_logits = False
    torch.testing.assert_close(made(micro).loss_sum, wanted, rtol=1e-6, atol=0)


def test_a_row_without_a_trained_token_gives_loss_0_and_gradient_0():
    sample = ragged_samples([6])[0]
    sample["labels"][:] = -100
    made = stage("lora")
    output = made(flatten([sample]))
    output.loss_sum.backward()
    assert (output.loss_sum.item(), output.num_units) == (0.0, 0)
    assert all(float(p.grad.abs().max()) == 0 for p in made.trainable_parameters().values() if p.grad is not None)


def test_in_evaluation_the_correct_tokens_are_counted():
    samples = ragged_samples(LENGTHS)
    made = stage("full").eval()
    with torch.no_grad():
        output = made(flatten(samples))
        batch = padded_batch(samples)
        logits = plain_twin(made).eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    wanted = (logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]).sum()
    assert output.logs["correct"] == wanted
    assert made.train()(flatten(samples)).logs == {}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_dtype_trains_with_finite_and_falling_loss(method, dtype):
    made = stage(method, dtype)
    samples = ragged_samples(LENGTHS)
    optimizer = torch.optim.AdamW(list(made.trainable_parameters().values()), lr=5e-3)
    run = run_loop(made, samples, batch_size=5, max_steps=4, optimizer=optimizer, dtype=dtype)
    losses = [float(r.loss_sum) / r.num_units for r in run.results]
    assert all(b < a for a, b in pairwise(losses)), losses
    assert all(torch.isfinite(r.grad_norm) for r in run.results)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trained_weights_are_fp32_and_frozen_ones_stay_as_they_were_loaded(dtype):
    """T15, T16: fails when what is trained stays in the 16 bits in which the base was loaded."""
    adapter = SupervisedFinetune(base().to(dtype), lora(), False, "bf16")
    trained = adapter.trainable_parameters()
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert {p.dtype for p in adapter.parameters() if not p.requires_grad} == {dtype}
    with_head = SupervisedFinetune(base().to(dtype), lora(modules_to_save=["lm_head"]), False, "bf16")
    trained = with_head.trainable_parameters()
    assert any("lm_head" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    full = SupervisedFinetune(base().to(dtype), None, False, "bf16")
    assert len(full.trainable_parameters()) == len(list(full.parameters()))
    assert {p.dtype for p in full.parameters()} == {torch.float32}


def test_a_lora_checkpoint_holds_the_adapter_alone_and_loads_in_plain_peft(tmp_path):
    made = stage("lora").eval()
    assert made.save_pretrained(tmp_path) == {}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as stored:
        names = list(stored.keys())
        assert {stored.get_tensor(name).dtype for name in names} == {torch.float32}
    assert len(names) == 2 * 7 * 2  # layers, linear layers in each, A and B; the tied head is not adapted
    assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in names)
    plain = PeftModel.from_pretrained(tiny_llama(), tmp_path).eval()
    ids = torch.from_numpy(ragged_samples([15])[0]["input_ids"]).long()[None]
    with torch.no_grad():
        torch.testing.assert_close(made.llm(ids).logits, plain(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_full_checkpoint_loads_in_plain_transformers_in_the_training_dtype(tmp_path, dtype, tied):
    made = SupervisedFinetune(base(tie_word_embeddings=tied), None, False, dtype).eval()
    made.save_pretrained(tmp_path)
    names = {f.name for f in tmp_path.iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    wanted_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert plain.dtype == wanted_dtype
    assert plain.config.tie_word_embeddings == tied
    for (name, stored), (_, trained) in zip(plain.named_parameters(), made.llm.named_parameters(), strict=True):
        assert torch.equal(stored, trained.to(wanted_dtype)), name


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_what_was_saved_comes_back_bit_for_bit(tmp_path, method, dtype):
    made = stage(method, dtype)
    saved = {name: p.detach().clone() for name, p in made.trainable_parameters().items()}
    masters = copy.deepcopy(made.save_pretrained(tmp_path))
    assert bool(masters) == (method == "full" and dtype == "bf16")
    other = stage(method, dtype)
    for parameter in other.trainable_parameters().values():
        torch.nn.init.zeros_(parameter)
    other.load_pretrained(tmp_path, masters)
    assert all(torch.equal(p, saved[name]) for name, p in other.trainable_parameters().items())


@pytest.mark.parametrize("family", ["mixtral", "gpt_neox"])
def test_a_full_checkpoint_of_a_family_that_is_stored_under_other_names_comes_back_too(tmp_path, family):
    """Fault: tensors matched by the names in the file; these families' experts and heads would stay the base's."""
    known = AutoConfig.for_model(family)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 128, "num_local_experts": 4, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **{name: size for name, size in sizes.items() if hasattr(known, name)})
    made, other = (SupervisedFinetune(AutoModelForCausalLM.from_config(config), None, False, "fp32") for _ in range(2))
    other.load_pretrained(tmp_path, made.save_pretrained(tmp_path))
    for (name, p), q in zip(made.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name


def test_a_full_checkpoint_that_lacks_a_tensor_is_refused(tmp_path):
    """Fault: what is missing stays as the base has it, in silence."""
    made = stage("full")
    made.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors are missing, such as model\.norm\.weight"):
        made.load_pretrained(tmp_path, {})


def test_target_modules_that_match_nothing_are_a_config_error():
    with pytest.raises(ConfigError, match=r"model\.lora: .*no_such_proj"):
        SupervisedFinetune(base(), lora(target_modules=["no_such_proj"]), False, "fp32")


def test_a_lora_target_that_the_model_lacks_is_a_fault_before_a_weight_is_loaded():
    values = load("med_llama_tiny_lora_medqa_e3", [("lora_target_modules", "['q_proj', 'v_prj']")]).values
    (fault,) = check(values)
    assert fault.startswith("model: lora.target_modules: the model has no module 'v_prj'. Did you mean 'v_proj'")
    assert check(load("med_llama_tiny_lora_medqa_e3", [("lora_target_modules", "q_proj,v_proj")]).values) == []


def test_activation_checkpointing_is_switched_on_without_a_warning(tiny_model_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = SupervisedFinetune(load_llm(str(tiny_model_path)), use_activation_checkpointing=True)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
