"""Building blocks of the pair stage against their usual names."""

from __future__ import annotations

import pytest
import torch

from xretrieve.heads import products
from xretrieve.heads.precise import Weight, add_product, apply, lengths, unit, unit_gradient
from xretrieve.heads.products import linear, pack, packed_linear


@pytest.mark.parametrize("rows", [1, 300, 517])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("operator", [True, False])
def test_linear_is_the_usual_one_for_any_number_of_rows(monkeypatch, rows, bias, relu, dtype, operator):
    if not operator:  # a torch that has not got it
        monkeypatch.setattr(products, "_onednn", lambda dtype: False)
    x, weight = torch.randn(rows, 1, 70).to(dtype), torch.randn(80, 70).to(dtype)
    given = torch.randn(80).to(dtype) if bias else None
    tolerance = {"atol": 0.2 if dtype == torch.bfloat16 else 5e-5, "rtol": 0}
    want = torch.nn.functional.linear(x.double(), weight.double(), None if given is None else given.double())
    with torch.no_grad():
        found = linear(x, weight, given, relu)
        torch.testing.assert_close(found.double(), want.relu() if relu else want, **tolerance)
        turned = torch.randn(70, 80).to(dtype).T
        torch.testing.assert_close(linear(x, turned).double(), x.double() @ turned.T.double(), **tolerance)
    wanted = linear(x.requires_grad_(), weight, given, relu)  # where gradients are wanted, autograd sees it
    assert wanted.requires_grad and torch.autograd.grad(wanted.sum(), x)[0].shape == x.shape


@pytest.mark.parametrize("rows", [1, 300, 1030])
@pytest.mark.parametrize("relu", [True, False])
def test_a_weight_laid_out_beforehand_gives_the_same_product_for_any_number_of_rows(rows, relu):
    x, weight, bias = torch.randn(rows, 2, 70), torch.randn(80, 70), torch.randn(80)
    packed = pack(weight)
    if packed is None:  # a torch that has not got it
        pytest.skip("this torch lays no weights out")
    want = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    found = packed_linear(x, packed, bias, relu)
    torch.testing.assert_close(found.double(), want.relu() if relu else want, atol=5e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("packs", [True, False])
def test_applying_a_weight_is_the_usual_product_whether_or_not_it_can_be_laid_out(monkeypatch, dtype, packs):
    if not packs:
        monkeypatch.setattr(products, "_packs", lambda dtype: False)
    weight, bias, x = torch.randn(80, 70), torch.randn(80), torch.randn(300, 70).to(dtype)
    with torch.no_grad():
        found = apply(x, Weight(weight), Weight(bias), relu=True)
    assert found.dtype == dtype
    want = torch.nn.functional.linear(x.double(), weight.to(dtype).double(), bias.to(dtype).double()).relu()
    torch.testing.assert_close(found.double(), want, atol=0.2 if dtype == torch.bfloat16 else 5e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_products_are_added_in_place(dtype):
    total, x, weight = torch.randn(3, 4, 5).to(dtype), torch.randn(3, 4, 2).to(dtype), torch.randn(2, 5).to(dtype)
    want = total + x @ weight
    add_product(total, x, weight)
    torch.testing.assert_close(total, want, **({"atol": 0.1, "rtol": 0} if dtype == torch.bfloat16 else {}))


def test_gradient_of_a_unit_vector_is_that_of_autograd_and_finite_at_zero():
    x = torch.randn(4, 6, dtype=torch.float64)
    x[1] = 0
    x.requires_grad_()
    plain = x / (x.square().sum(-1, keepdim=True).clamp(min=1e-24).sqrt() + 1e-8)
    grad = torch.randn_like(x)
    (want,) = torch.autograd.grad((plain * grad).sum(), x)
    with torch.no_grad():
        length = lengths(x)
        made = unit(x, length, out=torch.empty_like(x))
        torch.testing.assert_close(made, plain)
        torch.testing.assert_close(unit_gradient(grad, made, length), want)
