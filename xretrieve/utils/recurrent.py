"""GRUs over padded batches: packed sequences where they run, plain ones where a graph is made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    weights: list[Tensor] = [rnn.get_parameter(name + suffix) for name in names]
    start = x.new_zeros(1, x.shape[0], rnn.hidden_size)
    states, _ = torch.gru(x, start, weights, True, 1, 0.0, False, False, True)
    return states
