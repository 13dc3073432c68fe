"""Both losses against slow loops over pairs, in both float types, and against the goldens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.training.losses import HardestHinge, InfoNCE, create_loss, find_duplicates, list_losses

DTYPES = [torch.float32, torch.float64]


def slow_hinge(scores: Tensor, bad: Tensor, margin: float, hardest: bool) -> float:
    total = 0.0
    s, n = scores.tolist(), len(scores)
    for i in range(n):
        row = [max(0.0, margin + s[i][j] - s[i][i]) for j in range(n) if j != i and not bad[i, j]]
        column = [max(0.0, margin + s[j][i] - s[i][i]) for j in range(n) if j != i and not bad[j, i]]
        for costs in (row, column):
            total += (max(costs) if hardest else sum(costs)) if costs else 0.0
    return total


def slow_infonce(scores: Tensor, bad: Tensor, temperature: float, smoothing: float, symmetric: bool) -> float:
    def one_way(s: list[list[float]], skip: Tensor) -> float:
        total = 0.0
        for i, row in enumerate(s):
            kept = [j for j in range(len(row)) if j == i or not skip[i, j]]
            denominator = sum(math.exp(row[j] / temperature) for j in kept)
            log_p = {j: row[j] / temperature - math.log(denominator) for j in kept}
            total -= (1 - smoothing) * log_p[i] + smoothing * sum(log_p.values()) / len(kept)
        return total / len(s)

    there = one_way(scores.tolist(), bad)
    return (there + one_way(scores.T.tolist(), bad.T)) / 2 if symmetric else there


def batch(n: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(n, n, generator=generator, dtype=torch.float64).mul(2).sub(1).to(dtype)
    return scores, find_duplicates([i // 2 for i in range(n)], [f"t{i % 5}" for i in range(n)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hardest", [True, False])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_hinge_equals_the_loop(n: int, hardest: bool, dtype: torch.dtype) -> None:
    scores, bad = batch(n, dtype)
    loss, _ = HardestHinge(0.3, negatives="hardest" if hardest else "all")(scores, duplicates=bad)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_hinge(scores, bad, 0.3, hardest), abs=1e-5)
    unmasked, _ = HardestHinge(0.3, negatives="hardest" if hardest else "all", mask_duplicates=False)(
        scores, duplicates=bad
    )
    assert unmasked.item() == pytest.approx(slow_hinge(scores, torch.zeros_like(bad), 0.3, hardest), abs=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_infonce_equals_the_loop(symmetric: bool, smoothing: float, dtype: torch.dtype) -> None:
    scores, bad = batch(7, dtype)
    loss, _ = InfoNCE(0.2, symmetric=symmetric, label_smoothing=smoothing)(scores, duplicates=bad)
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(slow_infonce(scores, bad, 0.2, smoothing, symmetric), rel=1e-5)


@pytest.mark.parametrize(
    "name, options", [("hinge", {}), ("hinge", {"negatives": "all"}), ("infonce", {"label_smoothing": 0.1})]
)
def test_gradients_are_those_of_the_value(name: str, options: dict) -> None:
    scores, bad = batch(5, torch.float64)
    loss = create_loss(name, **options).double()
    assert torch.autograd.gradcheck(lambda s: loss(s, duplicates=bad)[0], scores.requires_grad_())
    if name == "infonce":
        loss(scores.detach())[0].backward()
        assert loss.log_scale.grad is not None and loss.log_scale.grad.abs() > 0


def test_goldens(golden: Path) -> None:
    arrays = np.load(golden / "image_text_scan.npz")
    pairs, margin = int(arrays["opt/loss_pairs"]), float(arrays["opt/margin"])
    for prefix in ("", "i2t_"):
        scores = torch.from_numpy(arrays[f"out/{prefix}scores"])[:pairs, :pairs].T  # stored images x captions
        for kind, key in (("hardest", "loss_max"), ("all", "loss_sum")):
            loss, _ = HardestHinge(margin, negatives=kind)(scores)
            assert loss.item() == pytest.approx(float(arrays[f"out/{prefix}{key}"]), abs=1e-4)


def test_a_row_with_nothing_but_duplicates_costs_nothing_and_has_no_nan() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2]], requires_grad=True)
    everything = ~torch.eye(2, dtype=torch.bool)
    for loss in (HardestHinge(), InfoNCE(), InfoNCE(label_smoothing=0.1)):
        value, stats = loss(scores, duplicates=everything)
        assert value.item() == pytest.approx(0)
        assert torch.isfinite(torch.autograd.grad(value, scores)[0]).all()
        assert all(torch.isfinite(v) for v in stats.values())


def test_extra_columns_are_negatives_for_the_captions() -> None:
    scores = torch.tensor([[0.9, 0.0, 0.85], [0.0, 0.9, 0.0]])
    assert HardestHinge(0.2)(scores)[0].item() == pytest.approx(0.15)
    with pytest.raises(XRetrieveError, match="3 captions but 2 images"):
        HardestHinge()(scores.T)


def test_several_positives_in_a_row() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.6]])
    positives = torch.tensor([[True, True, False]])
    only = HardestHinge(0.2)(scores, positives)[0].item()
    assert only == pytest.approx(0.3)  # 0.6 against 0.5; columns have no negative


def test_warm_up_sums_then_takes_the_hardest() -> None:
    scores, _ = batch(6, torch.float64)
    loss = HardestHinge(warmup_epochs=2)
    none = torch.zeros(6, 6, dtype=torch.bool)
    for epoch, hardest in ((0, False), (1, False), (2, True)):
        loss.set_epoch(epoch)
        assert loss(scores)[0].item() == pytest.approx(slow_hinge(scores, none, 0.2, hardest))


def test_the_numbers_to_log() -> None:
    scores = torch.tensor([[0.9, 0.8], [0.1, 0.9]])
    stats = HardestHinge(0.2)(scores)[1]
    assert stats["positive"].item() == pytest.approx(0.9) and stats["negative"].item() == pytest.approx(0.45)
    assert stats["active"].item() == 0.5  # caption 0 against image 1, image 1 against caption 0


def test_the_scale_stays_at_or_below_its_limit_and_can_come_back() -> None:
    loss = InfoNCE(temperature=0.001)
    scores, _ = batch(4, torch.float32)
    with torch.no_grad():
        loss.log_scale.fill_(9.0)
    value, stats = loss(scores)
    value.backward()
    assert stats["scale"].item() == pytest.approx(100) and loss.log_scale.grad.item() != 0


def test_wrong_names_say_the_right_one() -> None:
    assert list_losses("image_text") == ["hinge", "infonce"]
    assert list_losses() == ["hinge", "infonce", "match", "soft_triplet"]
    with pytest.raises(XRetrieveError, match="did you mean 'infonce'"):
        create_loss("infonec")
    with pytest.raises(XRetrieveError, match="did you mean 'margin'"):
        create_loss("hinge", margn=1)
    with pytest.raises(XRetrieveError, match="temperature"):
        create_loss("infonce", temperature=0)
