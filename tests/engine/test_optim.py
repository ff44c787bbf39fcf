"""The optimizer wrapper: clipping, the norm it tells, and loss scaling under fp16."""

from __future__ import annotations

import pytest
import torch

from medtune.engine.optim import StepOptimWrapper


def problem(seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))
    return model, torch.randn(32, 8), torch.randn(32, 4)


def loss_of(model, x, y):
    return (model(x) - y).square().sum()


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 1e6])
def test_clipping_equals_torchs_and_the_norm_told_is_the_one_before_it(max_norm):
    model, x, y = problem()
    plain, _, _ = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), {"max_norm": max_norm}, "fp32")
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    for _ in range(5):
        wrapper.backward(loss_of(model, x, y))
        told = wrapper.clip()
        wrapper.step()
        loss_of(plain, x, y).backward()
        wanted = torch.nn.utils.clip_grad_norm_(plain.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(told, wanted)
        assert all(torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))


def test_without_clipping_the_gradient_is_left_alone_and_its_norm_still_told():
    model, x, y = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), None, "fp32")
    wrapper.backward(loss_of(model, x, y))
    before = [p.grad.clone() for p in model.parameters()]
    norm = wrapper.clip()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))
    assert float(norm) == pytest.approx(float(torch.cat([g.flatten() for g in before]).norm()), rel=1e-6)


def test_a_step_clears_the_gradient():
    model, x, y = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), None, "fp32")
    wrapper.backward(loss_of(model, x, y))
    wrapper.clip()
    wrapper.step()
    assert all(p.grad is None for p in model.parameters())


def test_backward_adds_up_over_micro_batches():
    model, x, y = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), None, "fp32")
    for part in (slice(0, 10), slice(10, 32)):
        wrapper.backward(loss_of(model, x[part], y[part]))
    parts = wrapper.clip()
    model.zero_grad()
    wrapper.backward(loss_of(model, x, y))
    torch.testing.assert_close(parts, wrapper.clip())


def test_under_fp16_the_loss_is_scaled_and_the_gradient_and_its_norm_are_not():
    model, x, y = problem()
    plain, _, _ = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), {"max_norm": 1.0}, "fp16", 1024.0)
    wrapper.backward(loss_of(model, x, y))
    loss_of(plain, x, y).backward()
    raw = next(plain.parameters()).grad
    assert torch.equal(next(model.parameters()).grad, raw * 1024)  # a power of two is exact
    told = wrapper.clip()
    assert torch.equal(told, torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0))
    assert torch.equal(next(model.parameters()).grad, next(plain.parameters()).grad)


def test_under_fp16_a_gradient_that_overflowed_is_skipped_and_the_scale_halved():
    model, x, y = problem()
    before = [p.detach().clone() for p in model.parameters()]
    wrapper = StepOptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01), {"max_norm": 1.0}, "fp16")
    scale = wrapper.scaler.get_scale()
    wrapper.backward(loss_of(model, x, y) * 3e38)
    assert not torch.isfinite(wrapper.clip())
    wrapper.step()
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert wrapper.scaler.get_scale() == scale / 2
    wrapper.backward(loss_of(model, x, y))
    wrapper.clip()
    wrapper.step()
    assert not torch.equal(next(model.parameters()), before[0])


@pytest.mark.parametrize("dtype, scaled", [("fp16", True), ("bf16", False), ("fp32", False), ("auto", False)])
def test_only_fp16_is_scaled(dtype, scaled):
    model, _, _ = problem()
    wrapper = StepOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), None, dtype)
    assert wrapper.scaler.is_enabled() == scaled
