"""A training step as the loop runs it: every head over local tokens under the hinge, several captions per image."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import CASES, images, make, texts
from xretrieve.tokens import Tokens
from xretrieve.training.losses import HardestHinge
from xretrieve.training.trainee import Trainee


@pytest.mark.parametrize("case", CASES)
def test_loss_is_the_sum_over_the_heads_matrices_averaged_over_caption_sets(case):
    head = make(case)
    trainee = Trainee(head, HardestHinge())
    captions = Tokens.cat([texts((4, 2, 1)), texts((3, 3, 4), seed=5)])  # two sets of captions for three images
    none = torch.zeros(2, 3, 3, dtype=torch.bool)
    loss, logged = trainee(images(), captions, none)
    matrices = head.training_scores(head.prepare_queries(captions), head.prepare_gallery(images()))
    want = sum(HardestHinge()(part)[0] / 2 for scores in matrices.values() for part in scores.chunk(2))
    torch.testing.assert_close(loss, want)
    assert {"positive", "negative", "active"} <= logged.keys()
    trainee(images(), captions, none, hide=(0.4, 0.4))[0].backward()  # hidden tokens leave holes in the masks
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
