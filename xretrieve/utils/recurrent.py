"""GRUs over padded batches: packed sequences where they run, plain ones where a graph is made of them, and a loop for
a single text."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_gru(rnn: nn.GRU, x: Tensor, lengths: Tensor) -> Tensor:
    """The states of a one-layer, batch-first GRU at every place, both directions side by side where it has two.

    Args:
        rnn: the GRU, F wide outside and D inside.
        x: (N,W,F), anything beyond the lengths.
        lengths: (N,) int64, real places of each item, at least 1.

    Returns:
        (N,W,D) or (N,W,2D), 0 beyond the lengths.
    """
    if not torch.compiler.is_compiling():
        # Packed, so that the backward direction starts at the last real word. Measured on the CPU, forward and
        # backward of this form are as fast as sorted input and faster than two GRUs on padded input.
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=x.shape[1])[0]
    # A graph (torch.compile, ONNX) knows no packed sequences: the real places are turned round instead.
    place = torch.arange(x.shape[1], device=x.device)[None]  # (1,W)
    real = place < lengths[:, None]  # (N,W)
    states = one_direction(rnn, x)  # (N,W,D)
    if rnn.bidirectional:
        turned = torch.where(real, lengths[:, None] - 1 - place, place)[..., None]  # (N,W,1)
        back = one_direction(rnn, x.gather(1, turned.expand(-1, -1, x.shape[2])), "_reverse")
        states = torch.cat([states, back.gather(1, turned.expand(-1, -1, rnn.hidden_size))], -1)  # (N,W,2D)
    return states.masked_fill(~real[..., None], 0)


def one_direction(rnn: nn.GRU, x: Tensor, suffix: str = "") -> Tensor:
    """The states of one direction of a one-layer GRU, read from the first place on. (N,W,F) -> (N,W,D).

    Args:
        rnn: the GRU.
        x: its input.
        suffix: ``_reverse`` takes the weights of the backward direction.
    """
    start = x.new_zeros(1, x.shape[0], rnn.hidden_size)
    states, _ = torch.gru(x, start, _weights(rnn, suffix), True, 1, 0.0, False, False, True)
    return states


def _weights(rnn: nn.GRU, suffix: str = "") -> list[Tensor]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [rnn.get_parameter(name + suffix) for name in names]


class Ends(NamedTuple):
    """What :func:`run_one` keeps of a GRU and of the marks at both ends of a text."""

    inputs: Tensor  # (F,6D) input weights of both directions, side by side: a few rows times these are a third faster
    bias: Tensor  # (6D,)
    firsts: list[tuple[Tensor, Tensor]]  # of each direction: the state at its first mark (1,D), U state + b' (1,3D)


def ends_of(rnn: nn.GRU, first: Tensor, last: Tensor) -> Ends:
    """Of a one-layer, batch-first GRU of two directions, and the first and the last place of a text (1,F)."""
    both, firsts = (_weights(rnn), _weights(rnn, "_reverse")), []
    for (w, u, b, c), x in zip(both, (first, last), strict=True):
        state = _next_state(linear(x, w, b), c[None], x.new_zeros(1, rnn.hidden_size))
        firsts.append((state, linear(state, u, c)))
    return Ends(torch.cat([w for w, *_ in both]).T.contiguous(), torch.cat([b for _, _, b, _ in both]), firsts)


def run_one(rnn: nn.GRU, x: Tensor, ends: Ends) -> Tensor:
    """:func:`run_gru` of one item (W,F), W at least 2, values only: (W,2D).

    A place reads all recurrent weights from the memory (25 MB with 1,024 states), which is nearly all that it takes.
    Texts that begin and end with the same marks share the first step of each direction and what the second makes of it:
    kept, these weights are read twice less.
    """
    inputs, sides = torch.addmm(ends.bias, x, ends.inputs).chunk(2, 1), []  # (W,3D) each
    for suffix, own, (state, product) in zip(("", "_reverse"), inputs, ends.firsts, strict=True):
        (_, u, _, c), states, rows = _weights(rnn, suffix), [state], own.split(1)
        for place, row in enumerate(rows[-2::-1] if suffix else rows[1:]):
            state = _next_state(row, linear(state, u, c) if place else product, state)
            states.append(state)
        sides.append(torch.cat(states[::-1] if suffix else states))
    return torch.cat(sides, 1)


def _next_state(inputs: Tensor, product: Tensor, state: Tensor) -> Tensor:
    """A GRU's step in torch's order: W x + b (N,3D), U h + b' (N,3D) and h (N,D) to the next h."""
    wide = 2 * state.shape[1]
    reset, keep = (inputs[:, :wide] + product[:, :wide]).sigmoid_().chunk(2, 1)
    new = torch.addcmul(inputs[:, wide:], product[:, wide:], reset).tanh_()
    return (state - new).mul_(keep).add_(new)
