"""Dropout from bytes: rate, scale, gradient, independence, and when it does nothing."""

from __future__ import annotations

import pytest
import torch

from xretrieve.utils.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rate_and_scale(p, dtype):
    torch.manual_seed(0)
    y = Dropout(p).train()(torch.ones(1001, 101, dtype=dtype))
    rate = round(256 * p) / 256
    assert y.dtype == dtype
    assert float((y == 0).float().mean()) == pytest.approx(rate, abs=0.005)
    torch.testing.assert_close(y[y != 0].float().unique(), torch.tensor([1 / (1 - rate)]).to(dtype).float())
    for axis in (0, 1):  # no column or row is dropped as one
        assert (y == 0).float().mean(axis).std() < 0.06


def test_masks_differ_from_call_to_call_and_follow_the_seed():
    drop, x = Dropout(0.5).train(), torch.ones(64)
    torch.manual_seed(1)
    a, b = drop(x), drop(x)
    torch.manual_seed(1)
    assert not torch.equal(a, b)
    assert torch.equal(a, drop(x))


def test_the_gradient_is_the_mask():
    x = torch.randn(7, 5, 3, requires_grad=True)
    y = Dropout(0.4).train()(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_it_does_nothing_in_evaluation_or_at_rate_zero():
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert torch.equal(Dropout(0.0).train()(x), x)
    assert not Dropout(1.0).train()(x).any()
    assert Dropout(0.5).train()(torch.empty(0, 4)).shape == (0, 4)
