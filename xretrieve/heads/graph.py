"""A reasoning step over the nodes of all pairs, forward and backward written out: SGR's step and TSHSR's level.

    T = X A' + a      E = softmax(T X')           Y = E X            what the nodes say (query and key merged in A)
    U = softmax over the nodes of X Wc' + c       Z = l2(U' X)       the contexts
    e = softmax(X (Z K')' + (Z k)')               C = e Z            what the contexts say; one context: C = Z
    s = sigmoid(Y Gy' + e (Z Gz') + b)            J = Y + s (C - Y)  the gate, here the share of the contexts
    X <- ReLU(J Wr' + r)                                             in SGR J = Y

Written out because every pass over an S-wide array counts once the products are in bfloat16: nothing is copied, cast or
kept that the backward pass can do without. Softmaxes, norms and the gradients of weights are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Size, Tensor

from xretrieve.heads._kernels.steps import steps
from xretrieve.heads.precise import (
    Weight,
    add_product,
    bias_gradient,
    full,
    lengths,
    unit,
    unit_gradient,
    weight_gradient,
)
from xretrieve.heads.products import linear, short_softmax


class StepWeights(NamedTuple):
    """What a step multiplies with, (O,I) and biases (O,): :class:`Weight`s, or their values, or their gradients.

    Args:
        ask, ask_bias: A (S,S) and a.
        mix, mix_bias: Wr (S,S) and r.
        gate, gate_bias, gate_context: Gy (S or 1, S), b and Gz; None without context.
        share, share_bias: Wc (M,S) and c; None where the context is the mean of the nodes.
        key, key_bias: K (S,S) and k; None with one context.
    """

    ask: Any
    ask_bias: Any
    mix: Any
    mix_bias: Any
    gate: Any = None
    gate_bias: Any = None
    gate_context: Any = None
    share: Any = None
    share_bias: Any = None
    key: Any = None
    key_bias: Any = None

    def to(self, dtype: torch.dtype) -> StepWeights:
        """The values in the precision of the products, without gradients."""
        return StepWeights(*(w.to(dtype) if isinstance(w, Weight) else None for w in self))


class Kept(NamedTuple):
    """What the backward pass reads besides the nodes: (P,r,..) of the asking nodes, (P,M,..) of the contexts."""

    t: Tensor
    e: Tensor
    y: Tensor
    share: Tensor | None = None  # U' (P,M,n)
    z: Tensor | None = None
    length: Tensor | None = None  # of U' X (P,M,1)
    s: Tensor | None = None
    keys: Tensor | None = None  # Z K' (P,M,S)
    over: Tensor | None = None  # e (P,r,M)
    from_z: Tensor | None = None  # Z Gz' (P,M,S or 1)


def step(
    x: Tensor, mask: Tensor | None, weights: StepWeights, first_row: bool, trace: dict[str, Tensor] | None = None
) -> Tensor:
    """The next level's nodes.

    Args:
        x: (g,N,M,n,S).
        mask: (g,1,M,n), None when every node is real.
        weights: of the step.
        first_row: only the first node is read afterwards.
        trace: receives ``assign`` (g,N,M,n,clusters) and ``gate`` (g,N,M,n,S or 1), where the step has them.

    Returns:
        (g,N,M,n,S), or (g,N,M,1,S) with ``first_row``.
    """
    if trace is None and not torch.is_grad_enabled():
        return steps(x, mask, [weights], first_row)
    pairs = x.shape[:3]
    full_weights = (None if w is None else w.full for w in weights)
    found: dict[str, Tensor] | None = None if trace is None else {}
    keep = torch.is_grad_enabled()
    made = _Step.apply(x.flatten(0, 2), mask, pairs, weights, first_row, keep, found, *full_weights)
    if trace is not None and found:
        trace["gate"] = 1 - found["s"].unflatten(0, pairs)
        trace |= {"assign": found["share"].mT.unflatten(0, pairs)}
    return made.unflatten(0, pairs)


def reason(x: Tensor, mask: Tensor | None, weights: Sequence[StepWeights], first_row: bool) -> Tensor:
    """The nodes after several steps, as :func:`step` after step gives them; ``first_row`` is of the last one."""
    if not torch.is_grad_enabled():
        return steps(x, mask, weights, first_row)
    for k, own in enumerate(weights):
        x = step(x, mask, own, first_row and k == len(weights) - 1)
    return x


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, pairs: Size, weights: StepWeights, first_row: bool, keep: bool,
        found: dict[str, Tensor] | None, *full_weights: Tensor | None,
    ) -> Tensor:  # fmt: skip
        w = weights.to(x.dtype)
        asking = x[:, :1].contiguous() if first_row else x  # (P,r,S)
        t = linear(asking, w.ask, w.ask_bias)
        e = _softmax(torch.bmm(t, x.mT), None if mask is None else mask[..., None, :], pairs)  # (P,r,n)
        kept = Kept(t, e, torch.bmm(e, x))
        if w.gate is not None:
            kept = _extract(x, mask, pairs, w, kept)
            joined, kept = _join(asking, w, kept, keep)
            if found is not None:
                found |= {"share": kept.share, "s": kept.s}
        else:
            joined = kept.y
        made = linear(joined, w.mix, w.mix_bias, relu=True)
        if keep:
            ctx.save_for_backward(x, made, *kept)
            ctx.weights, ctx.first_row = weights, first_row
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, made, *rest = ctx.saved_tensors
        kept, w, to = Kept(*rest), ctx.weights.to(x.dtype), {}
        asking = x[:, :1].contiguous() if ctx.first_row else x
        grad = torch.ops.aten.threshold_backward(grad.contiguous(), made, 0)  # of the ReLU
        if w.gate is None:
            to_y = _affine_gradient(to, "mix", grad, kept.y, w)
        else:
            to_y, to_z, to_from_z, to_over = _gate_gradient(to, grad, w, kept)
        # E = softmax(T X'), Y = E X
        to_logits = _softmax_gradient(kept.e, torch.bmm(to_y, x.mT))  # (P,r,n)
        to_x = torch.bmm(kept.e.mT, to_y).baddbmm_(to_logits.mT, kept.t)
        to_asking = torch.zeros_like(asking) if ctx.first_row else to_x  # the same array where every node asks
        to_t = torch.bmm(to_logits, x)  # (P,r,S)
        to["ask"], to["ask_bias"] = weight_gradient(to_t, asking), bias_gradient(to_t)
        add_product(to_asking, to_t, w.ask)
        if w.gate is not None:
            if w.key is not None:
                to_z += _question_gradient(to, to_asking, asking, to_over, w, kept)
            to["gate_context"] = weight_gradient(to_from_z, kept.z)
            add_product(to_z, to_from_z, w.gate_context)
            _extract_gradient(to, to_x, x, to_z, w, kept)
        if ctx.first_row:
            to_x[:, :1] += to_asking
        return to_x, None, None, None, None, None, None, *(to.get(name) for name in StepWeights._fields)


def _extract(x: Tensor, mask: Tensor | None, pairs: Size, w: StepWeights, kept: Kept) -> Kept:
    """Z, the contexts."""
    if w.share is not None:
        logits = linear(x, w.share, w.share_bias).mT  # (P,M,n)
        share = _softmax(logits, None if mask is None else mask[..., None, :], pairs)
    else:
        real = x.new_ones(len(x), 1, x.shape[1])
        if mask is not None:
            real = real.unflatten(0, pairs).mul_(mask[..., None, :]).flatten(0, 2)
        share = real / real.sum(-1, keepdim=True)
    mixed = torch.bmm(share, x)  # (P,M,S)
    length = lengths(mixed)
    return kept._replace(share=share, z=unit(mixed, length, out=mixed), length=length)


def _join(asking: Tensor, w: StepWeights, kept: Kept, keep: bool) -> tuple[Tensor, Kept]:
    """J from Y and Z."""
    z, y = kept.z, kept.y
    from_z = linear(z, w.gate_context)  # (P,M,S or 1)
    gate = linear(y, w.gate, w.gate_bias)  # (P,r,S or 1)
    if w.key is None:
        gate, apart = gate.add_(from_z), z - y
    else:
        keys = linear(z, w.key)  # (P,M,S)
        shift = linear(z, w.key_bias[None]).mT  # (P,1,M)
        over = _softmax(torch.baddbmm(shift, asking, keys.mT))  # (P,r,M)
        gate, apart = gate.baddbmm_(over, from_z), torch.bmm(over, z).sub_(y)
        kept = kept._replace(keys=keys, over=over)
    s = gate.sigmoid_()
    joined = torch.addcmul(y, apart, s) if keep else y.addcmul_(apart, s)
    return joined, kept._replace(s=s, from_z=from_z)


def _gate_gradient(
    to: dict[str, Tensor], grad: Tensor, w: StepWeights, kept: Kept
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of Y (P,r,S), Z (P,M,S), Z Gz' (P,M,S or 1) and e (P,r,M), as far as C and the gate carry them."""
    y, z, s, over = kept.y, kept.z, kept.s, kept.over
    apart = z - y if over is None else torch.bmm(over, z).sub_(y)  # C - Y
    to_joined = _affine_gradient(to, "mix", grad, torch.addcmul(y, apart, s), w)
    to_s = apart.mul_(to_joined)
    to_s = to_s if s.shape[-1] > 1 else to_s.sum(-1, keepdim=True)
    to_gate = torch.ops.aten.sigmoid_backward(to_s, s)
    to_c = to_joined * s
    to_y = to_joined.sub_(to_c)
    to["gate"], to["gate_bias"] = weight_gradient(to_gate, y), bias_gradient(to_gate)
    add_product(to_y, to_gate, w.gate)
    if over is None:
        return to_y, to_c.sum(1, keepdim=True), to_gate.sum(1, keepdim=True), None
    to_over = torch.bmm(to_c, z.mT).baddbmm_(to_gate, kept.from_z.mT)
    return to_y, torch.bmm(over.mT, to_c), torch.bmm(over.mT, to_gate), to_over


def _question_gradient(
    to: dict[str, Tensor], to_asking: Tensor, asking: Tensor, to_over: Tensor, w: StepWeights, kept: Kept
) -> Tensor:
    """Through e: adds to the asking nodes' gradient, gives that of Z."""
    to_logits = _softmax_gradient(kept.over, to_over)  # (P,r,M)
    to_asking.baddbmm_(to_logits, kept.keys)
    to_keys = torch.bmm(to_logits.mT, asking)  # (P,M,S)
    to_shift = to_logits.sum(1)[..., None]  # (P,M,1)
    to["key"] = weight_gradient(to_keys, kept.z)
    to["key_bias"] = weight_gradient(to_shift, kept.z)[0]
    return linear(to_keys, w.key.T) + to_shift * w.key_bias


def _extract_gradient(to: dict[str, Tensor], to_x: Tensor, x: Tensor, to_z: Tensor, w: StepWeights, kept: Kept) -> None:
    """Through Z: adds to the nodes' gradient."""
    to_mixed = unit_gradient(to_z, kept.z, kept.length)
    to_x.baddbmm_(kept.share.mT, to_mixed)
    if w.share is not None:
        logits = _softmax_gradient(kept.share, torch.bmm(to_mixed, x.mT)).mT.contiguous()  # (P,n,M)
        to["share"], to["share_bias"] = weight_gradient(logits, x), bias_gradient(logits)
        add_product(to_x, logits, w.share)


def _affine_gradient(to: dict[str, Tensor], name: str, grad: Tensor, x: Tensor, w: StepWeights) -> Tensor:
    """Gradient of x, of ``x weight' + bias``; those of weight and bias are noted."""
    to[name], to[f"{name}_bias"] = weight_gradient(grad, x), bias_gradient(grad)
    return linear(grad, getattr(w, name).T)


def _softmax(logits: Tensor, mask: Tensor | None = None, pairs: Size | None = None) -> Tensor:
    """Over the last axis in float32, in the precision of the products afterwards. mask (g,1,M,1,n)."""
    wide = full(logits)
    if mask is None:
        return short_softmax(wide).to(logits.dtype)
    return short_softmax(wide.unflatten(0, pairs), mask).flatten(0, 2).to(logits.dtype)


def _softmax_gradient(made: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the logits."""
    return torch.ops.aten._softmax_backward_data(full(grad), full(made), -1, full(made).dtype).to(made.dtype)
