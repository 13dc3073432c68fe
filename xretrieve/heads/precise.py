"""Products and unit vectors of the written-out pair stage: values only, in the precision of the matrix products.

Gradients are in full precision: a :class:`Weight` keeps the parameter beside the copy that the products read.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xretrieve.heads.base import EPS
from xretrieve.heads.products import linear, pack, packed_linear


class Weight:
    """A weight and its copies in lower precision, each made once.

    Args:
        full: the parameter, or what was made of parameters.
    """

    def __init__(self, full: Tensor) -> None:
        self.full = full
        self._copies: dict[torch.dtype, Tensor] = {}
        self._packed: dict[torch.dtype, Tensor | None] = {}

    def to(self, dtype: torch.dtype) -> Tensor:
        """The values, without gradient."""
        if dtype not in self._copies:
            self._copies[dtype] = self.full.detach().to(dtype)
        return self._copies[dtype]

    def packed(self, dtype: torch.dtype) -> Tensor | None:
        """The values as :func:`xretrieve.heads.products.packed_linear` reads them, where it can."""
        if dtype not in self._packed:
            self._packed[dtype] = pack(self.to(dtype))
        return self._packed[dtype]


class Affine:
    """Weight and bias of a Linear layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = Weight(layer.weight), Weight(layer.bias)


def apply(x: Tensor, weight: Weight, bias: Weight | None = None, relu: bool = False) -> Tensor:
    """:func:`xretrieve.heads.products.linear`, values only, with a weight that many products read."""
    packed, shift = weight.packed(x.dtype), None if bias is None else bias.to(x.dtype)
    if packed is None:
        return linear(x, weight.to(x.dtype), shift, relu)
    return packed_linear(x, packed, shift, relu)


def weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of ``weight`` in :func:`xretrieve.heads.products.linear`, float32. (..., J), (..., K) -> (J, K)."""
    return full(grad.flatten(0, -2).T @ x.flatten(0, -2))


def bias_gradient(grad: Tensor) -> Tensor:
    """Gradient of ``bias`` in :func:`xretrieve.heads.products.linear`, float32. (..., J) -> (J,)."""
    return full(grad.flatten(0, -2).sum(0))


def full(x: Tensor) -> Tensor:
    """At least float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def lengths(x: Tensor) -> Tensor:
    """``||x||`` along the last axis, at least float32 and 1e-12 (which changes no value). (..., S) -> (..., 1)."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).clamp_(min=1e-12)


def unit(x: Tensor, length: Tensor, out: Tensor) -> Tensor:
    """``x / (||x|| + 1e-8)`` into ``out``, which may be x; one rounding."""
    return torch.mul(x, 1 / (length + EPS), out=out)


def unit_gradient(grad: Tensor, made: Tensor, length: Tensor) -> Tensor:
    """Gradient of x, of what :func:`unit` made of it; 0 along x. All (..., S) but length (..., 1)."""
    inverse = 1 / (length + EPS)
    along = full((grad * made).sum(-1, keepdim=True, dtype=inverse.dtype)) * ((length + EPS) / length)
    # a row whose sum of squares was raised to 1e-24 has a constant length
    along = along.masked_fill(length <= 1e-12, 0).to(made.dtype)
    across = torch.addcmul(grad, made, along, value=-1)
    return torch.mul(across, inverse, out=across)


def add_product(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """``total += x weight``. total (..., K), x (..., J), weight (J, K)."""
    if total.dtype == torch.float32 and total.device.type == "cpu":
        total += linear(x, weight.T)
    else:
        total.view(-1, total.shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), weight)
