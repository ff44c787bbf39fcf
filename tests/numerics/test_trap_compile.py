"""T24: medtune does not compile its models, and says so; and what a compiled step would have to equal."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
import torch
from conftest import ROOT
from helpers import flat, ragged_samples, relative, tiny_llama

from medtune.data.collate import flatten
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune


def compilations(source: str) -> Iterator[str]:
    """Lines of Python that compile a model: `torch.compile`, `module.compile()`, mmengine's `compile=`, or dynamo."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            named = [f"{getattr(node, 'module', '')}.{alias.name}" for alias in node.names]
            if any("_dynamo" in name or (name.startswith("torch") and "compile" in name) for name in named):
                yield ast.unparse(node)
        elif isinstance(node, ast.Attribute) and node.attr in ("compile", "_dynamo"):
            if ast.unparse(node.value) != "re":
                yield ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in ("compile", "torch_compile"):
            yield ast.unparse(node.value)


@pytest.mark.parametrize(
    "source",
    [
        "import torch\nmodel = torch.compile(model)",
        "from torch import compile",
        "model.compile(mode='max-autotune')",
        "Runner(cfg, compile=True)",
        "import torch._dynamo",
        "torch._dynamo.config.recompile_limit = 8",
    ],
)
def test_each_way_to_compile_a_model_is_found(source):
    """T24: shows that the next test can fail."""
    assert list(compilations(source))


def test_nothing_in_medtune_or_its_configs_compiles_a_model():
    """T24: fails when a model is compiled: ragged rows pass the recompile limit and fall back to eager in silence."""
    files = [file for folder in ("medtune", "configs") for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 50
    found = [f"{file.relative_to(ROOT)}: {text}" for file in files for text in compilations(file.read_text("utf-8"))]
    assert found == []


@pytest.mark.slow
def test_a_compiled_step_over_ragged_rows_equals_the_eager_one_within_the_recompile_limit():
    """T24: fails when the step has code that torch.compile changes, or that recompiles for every length."""

    def gradient(compiled: bool):
        llm = tiny_llama(num_hidden_layers=1)
        llm.set_attn_implementation(attention.NAME)
        made = SupervisedFinetune(llm, None, False, "fp32").train()
        if compiled:
            made.llm.forward = torch.compile(made.llm.forward, backend="aot_eager", dynamic=True)
        losses = []
        for seed, lengths in enumerate(([12, 3], [31, 8], [7, 20], [9, 9], [5, 14])):
            output = made(flatten(ragged_samples(lengths, seed)))
            output.loss_sum.backward()
            losses.append(output.loss_sum.item())
        return losses, flat({name: p.grad for name, p in made.trainable_parameters().items()})

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=3, fail_on_recompile_limit_hit=True):
        losses, compiled = gradient(True)
    wanted_losses, wanted = gradient(False)
    assert losses == pytest.approx(wanted_losses, rel=1e-5)
    assert relative(compiled, wanted) < 1e-5
