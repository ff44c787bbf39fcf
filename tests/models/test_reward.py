"""The reward model against a plain loop over transformers' own model, and what becomes of its checkpoints."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from helpers import VOCAB, flat, ragged_samples, ranks, relative, run_loop, tiny_llama_folder
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from medtune.build import check
from medtune.chat import open_session
from medtune.config import load
from medtune.convert import pth_to_hf
from medtune.data.collate import flatten
from medtune.data.readers import read_data
from medtune.engine.evaluate import evaluate_checkpoint
from medtune.engine.train import train
from medtune.errors import ConfigError, DataError, ModelError
from medtune.generate import Sampling
from medtune.merge import merge
from medtune.models import attention
from medtune.models.load import load_llm, load_tokenizer
from medtune.models.reward import RewardModel, set_padding

LENGTHS = [12, 3, 31, 7, 20, 21]


def scorer(seed=0):
    """A random Llama with a score, as `load_llm(head="score")` gives it, in fp32."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(seed)
    config = LlamaConfig(**sizes, vocab_size=VOCAB, num_labels=1, initializer_range=0.1)
    return LlamaForSequenceClassification(config)


def lora():
    return LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path):
    return load_tokenizer(str(tiny_model_path))


def stage(tokenizer, method="full", **settings):
    """A stage; its adapter's second half is drawn, not zero, so that all gradients are there."""
    llm = scorer()
    llm.set_attn_implementation(attention.NAME)
    torch.manual_seed(1)
    made = RewardModel(llm, lora() if method == "lora" else None, tokenizer=tokenizer, **settings)
    for name, parameter in made.trainable_parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return made.train()


def plain_scores(model, samples):
    """A score for each sample, one row at a time, by transformers' own model."""
    rows = [torch.from_numpy(s["input_ids"]).long()[None] for s in samples]
    return torch.cat([model(input_ids=row).logits[:, 0] for row in rows])


LOSSES = {
    "ranking": lambda c, r: -F.logsigmoid(c - r),
    "margin": lambda c, r: -torch.log(1 / (1 + torch.exp(-(c - r - 0.5)))),
    "centre": lambda c, r: -F.logsigmoid(c - r) + 0.3 * (c + r) ** 2,  # TRL: center_rewards_coefficient=0.3
    "focal": lambda c, r: -F.logsigmoid(c - r) * (1 - 2 * max(float(torch.sigmoid(c - r)) - 0.5, 0)) ** 2,
}
SETTINGS = {"ranking": {}, "margin": {"margin": 0.5}, "centre": {"centre": 0.3}, "focal": {"loss_type": "focal"}}


@pytest.mark.parametrize("loss", ["ranking", "margin", "centre"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_loss_and_gradient_of_a_step_equal_a_plain_loop_over_pairs(method, loss, tokenizer):
    """Fault: the score taken at another token, a pair turned round, a mean in place of the step's sum over pairs."""
    samples = ragged_samples(LENGTHS)
    made = stage(tokenizer, method, **SETTINGS[loss])
    plain = scorer()
    if method == "lora":
        plain = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS"))
    plain.load_state_dict(made.llm.state_dict())
    plain.config.pad_token_id = None
    scores = plain_scores(plain.train(), samples)
    losses = [LOSSES[loss](scores[i], scores[i + 1]) for i in range(0, len(samples), 2)]
    (sum(losses) / len(losses)).backward()
    wanted = {f"llm.{name}": p.grad for name, p in plain.named_parameters() if p.grad is not None}
    pairs = [[0, 1], [2, 3], [4, 5]]
    run = run_loop(made, samples, packs=pairs, batch_size=2, accumulative_counts=2)
    assert float(run.results[0].loss_sum) / 3 == pytest.approx(sum(losses).item() / 3, rel=1e-6)
    assert run.results[0].num_units == 3
    assert run.gradients[0].keys() == wanted.keys() and any("score" in name for name in wanted)
    assert relative(flat(run.gradients[0]), flat(wanted)) < 1e-6


def test_the_focal_loss_counts_a_pair_little_that_is_told_apart(tokenizer):
    samples = ragged_samples(LENGTHS)
    made = stage(tokenizer, loss_type="focal").eval()
    scores = plain_scores(made.llm.eval(), samples)
    wanted = sum(LOSSES["focal"](scores[i], scores[i + 1]) for i in range(0, 6, 2))
    assert float(made(flatten(samples)).loss_sum) == pytest.approx(float(wanted), rel=1e-6)


def test_packed_rows_padded_rows_and_samples_alone_have_the_same_scores(tokenizer):
    """Fault: a sample sees the one before it; the padding's last state is scored."""
    samples = ragged_samples(LENGTHS)
    made = stage(tokenizer).eval()
    with torch.no_grad():
        packed = made.scores(flatten(samples))
        alone = torch.cat([made.scores(flatten([sample])) for sample in samples])
        made.packed_rows = False
        made.llm.set_attn_implementation("eager")
        padded = made.scores(flatten(samples))
    torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(packed, padded, rtol=1e-5, atol=1e-6)


def test_noise_on_the_embeddings_is_for_training_alone(tokenizer):
    micro = flatten(ragged_samples(LENGTHS))
    noisy, quiet = stage(tokenizer, neftune_noise_alpha=5), stage(tokenizer)
    assert not torch.equal(noisy.scores(micro), noisy.scores(micro))
    assert torch.equal(noisy.eval().scores(micro), quiet.eval().scores(micro))


def test_metrics_are_those_of_the_scores(tokenizer):
    samples = ragged_samples(LENGTHS)
    made = stage(tokenizer).eval()
    with torch.no_grad():
        output, scores = made(flatten(samples)), made.scores(flatten(samples))
    chosen, rejected = scores[0::2], scores[1::2]
    got = made.metrics(float(output.loss_sum) / 3, {name: float(v) / 3 for name, v in output.logs.items()})
    assert got == pytest.approx(
        {
            "loss": float(-F.logsigmoid(chosen - rejected).mean()),
            "accuracy": float((chosen > rejected).float().mean()),
            "margin": float((chosen - rejected).mean()),
            "chosen_score": float(chosen.mean()),
            "rejected_score": float(rejected.mean()),
            "score_std": float(scores.std(unbiased=False)),
        },
        rel=1e-5,
    )


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"pad": "<p>", "eos": "</s>", "bos": "<s>"}, "<p>"),
        ({"pad": "</s>", "eos": "</s>", "bos": "<s>"}, "<s>"),
        ({"eos": "</s>", "unk": "<unk>", "bos": "<s>"}, "<unk>"),
    ],
)
def test_the_padding_token_is_one_that_ends_no_text(names, wanted):
    """Fault: with pad = eos, transformers would take the end token for padding and score the token before it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    def make(names):
        vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "<p>"])}
        words = {f"{name}_token": token for name, token in names.items()}
        return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, "<unk>")), **words)

    made = make(names)
    assert made.convert_ids_to_tokens(set_padding(made)) == wanted == made.pad_token
    with pytest.raises(ConfigError, match="a reward model needs a padding token other than eos"):
        set_padding(make({"eos": "</s>", "pad": "</s>"}))


def test_a_model_without_a_score_is_refused(tiny_model_path, tokenizer):
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM gives no score; load it with load_llm\(head='score'\)"):
        RewardModel(load_llm(str(tiny_model_path)), tokenizer=tokenizer)


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "own head"])
def base(request, tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "base", tie_word_embeddings=request.param)


def config(base, **changes):
    settings = {
        "pretrained_model_name_or_path": base,
        "torch_dtype": "fp32",
        "data_path": "answer-pairs",
        "max_length": 128,
        "max_steps": 4,
        "accumulative_counts": 2,
        "val_ratio": 0.2,
        "lora_r": 4,
        "lr": 1e-2,
        "save_steps": 2,
        "use_activation_checkpointing": False,
        **changes,
    }
    return load("rm", [(name, str(value)) for name, value in settings.items()])


def conversations(tokenizer, count=6):
    """Ids of the answers of the bundled pairs, as anybody would write them with the tokenizer alone."""
    rows = [row.fields for row in read_data("answer-pairs")][: count // 2]
    told = [(row["question"], row[side]) for row in rows for side in ("chosen", "rejected")]
    messages = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in told]
    return [tokenizer.apply_chat_template(one, tokenize=False) for one in messages]


@torch.no_grad()
def scores_in_transformers(model, folder):
    """Scores of a few conversations, alone and in one padded batch, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = conversations(tokenizer)
    model = model.eval()
    alone = [model(**tokenizer(t, add_special_tokens=False, return_tensors="pt")).logits.item() for t in texts]
    batch = tokenizer(texts, add_special_tokens=False, return_tensors="pt", padding=True)
    assert model(**batch).logits[:, 0].tolist() == pytest.approx(alone, abs=1e-5)
    return alone


@torch.no_grad()
def scores_in_medtune(model, tokenizer):
    ids = [tokenizer(t, add_special_tokens=False)["input_ids"] for t in conversations(tokenizer)]
    samples = [{"input_ids": one, "labels": one} for one in ids]
    return model.eval().scores(flatten(samples)).tolist()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_converts_and_merges_to_what_plain_transformers_scores_alike(method, base, tmp_path):
    runner = train(config(base, method=method), tmp_path / "work")
    assert 0 <= runner.metrics["val_accuracy"] <= 1 and runner.metrics["val_pairs"] == 6
    pth_to_hf(tmp_path / "work" / "iter_4.pth", tmp_path / "hf")
    card = (tmp_path / "hf" / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card and "AutoModelForSequenceClassification" in card
    assert "loss per pair" in card and "medtune chat" not in card
    result = tmp_path / "hf"
    if method == "lora":
        plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
        plain = PeftModel.from_pretrained(plain, tmp_path / "hf")
        merge(base, tmp_path / "hf", tmp_path / "merged", verify=True)
        result = tmp_path / "merged"
        adapted = scores_in_transformers(plain, tmp_path / "hf")
    merged = AutoModelForSequenceClassification.from_pretrained(result)
    assert merged.config.architectures == ["LlamaForSequenceClassification"] and merged.config.num_labels == 1
    scores = scores_in_transformers(merged, result)
    assert scores == pytest.approx(scores_in_medtune(runner.model, runner.inputs.tokenizer), abs=1e-5)
    assert method == "full" or scores == pytest.approx(adapted, abs=1e-5)
    with pytest.raises(ModelError, match="a reward model gives a score, not an answer"):
        open_session(str(result), Sampling(), device="cpu", on_notice=print)


def test_a_checkpoint_is_measured_as_its_training_measured_it(base, tmp_path):
    made = config(base, method="lora")
    runner = train(made, tmp_path / "work")
    wanted = {name: value for name, value in runner.metrics.items() if name.startswith("val_")}
    assert evaluate_checkpoint(config(base, method="lora"), tmp_path / "work" / "iter_4.pth") == pytest.approx(wanted)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(method, base, tmp_path):
    whole = train(config(base, method=method), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole" / "iter_2.pth", tmp_path / "parts" / "iter_2.pth")
    resumed = train(config(base, method=method), tmp_path / "parts", resume="auto")
    for name, wanted in whole.model.trainable_parameters().items():
        assert torch.equal(resumed.model.trainable_parameters()[name], wanted), name


def gradient_of_a_step(model_path, num_packs):
    samples = ragged_samples(LENGTHS)
    made = stage(load_tokenizer(model_path))
    run = run_loop(made, samples, packs=[[0, 1], [2, 3], [4, 5]], batch_size=num_packs)
    return {name: g.clone() for name, g in run.gradients[0].items()}, float(run.results[0].loss_sum)


@pytest.mark.slow
def test_two_processes_take_the_step_that_one_takes(tiny_model_path):
    wanted, loss = gradient_of_a_step(str(tiny_model_path), 4)
    for got, told in ranks(2, gradient_of_a_step, str(tiny_model_path), 2):
        assert told == pytest.approx(loss, rel=1e-6)
        assert relative(flat(got), flat(wanted)) < 1e-6


def test_a_list_of_answers_gives_its_best_and_its_worst(base, tmp_path):
    rows = [{"instruction": f"Question {i}?", "input": "", "output": ["Good.", "Fair.", "Bad."]} for i in range(4)]
    rows[3]["output"] = ["Same.", "Same."]
    (tmp_path / "ranked.json").write_text(json.dumps(rows))
    runner = train(config(base, data_path=tmp_path / "ranked.json", val_ratio=0.0, max_steps=1), tmp_path / "work")
    data = runner.inputs.train_dataset
    decoded = [runner.inputs.tokenizer.decode(data.samples[i]["input_ids"]) for i in range(len(data.samples))]
    assert ["Good." in text for text in decoded] == [True, False] * 3
    assert ["Bad." in text for text in decoded] == [False, True] * 3
    assert data.report.dropped["both answers are the same"] == 1


def test_rows_that_are_no_pairs_are_refused_in_one_line(base, tmp_path):
    (tmp_path / "sft.jsonl").write_text('{"question": "What?", "answer": "That."}\n')
    with pytest.raises(DataError, match=r"sft\.jsonl:1: one answer where a chosen and a rejected one are wanted"):
        train(config(base, data_path=tmp_path / "sft.jsonl"), tmp_path / "work")


def test_the_base_config_has_no_fault_and_its_settings_reach_the_stage():
    values = load("rm", [("rm_margin", "0.5"), ("rm_centre", "0.01"), ("rm_loss_type", "focal")]).values
    assert check(values) == []
    model = values["model"]
    assert (model["type"], model["llm"]["head"]) == (RewardModel, "score")
    assert (model["margin"], model["centre"], model["loss_type"]) == (0.5, 0.01, "focal")
    assert values["train_dataset"]["kind"] == values["val_dataset"]["kind"] == "pairs"


def test_the_bundled_pairs_cannot_be_told_by_their_length():
    rows = [row.fields for row in read_data("answer-pairs")]
    longer = sum(len(row["chosen"]) > len(row["rejected"]) for row in rows)
    assert len(rows) == 30 and abs(longer / len(rows) - 0.5) <= 0.1
    assert all(text == text.strip() and text for row in rows for text in row.values())
