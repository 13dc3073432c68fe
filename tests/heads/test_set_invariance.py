"""Padding, hidden regions and their order change no round, no loss, no gradient and no statistic of heads over sets."""

from __future__ import annotations

import pytest
import torch

from tests.heads.local_cases import assert_same_gradients
from tests.heads.set_cases import CASES, SIZES, images, make, sentences, sides
from tests.heads.test_invariance import further, holed, turned
from xretrieve.heads import create_head
from xretrieve.heads.multi import MultiQueryHead
from xretrieve.tokens import Tokens
from xretrieve.training.losses import HardestHinge, InfoNCE

TOL = {"atol": 2e-6, "rtol": 2e-6}
every_head = pytest.mark.parametrize("case", CASES)
# with region_norm=index the place of a region counts; padding behind all regions does not
changed = pytest.mark.parametrize(("case", "change"), [(c, change) for c in CASES for change in (further, holed, turned)
                                                       if c != "hmrn-index" or change is further])  # fmt: skip


def without_dropout(case: str) -> MultiQueryHead:
    return make(case, **({"dropout": 0.0} if case.startswith("hmrn") else {}))


def step(head: MultiQueryHead, regions: Tokens) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Training loss of three sets and three images, and its gradients."""
    sizes = (4, 3, 4)
    sets = head.combine_sets(head.prepare_queries(sentences(sizes)), sizes)
    loss = InfoNCE(1 / 10, learnable=False) if head.name == "hmrn" else HardestHinge(0.2)
    head.zero_grad()
    total, stats = head.training_loss(sets, head.prepare_gallery(regions), loss)
    total.backward()
    assert torch.isfinite(total) and all(torch.isfinite(torch.as_tensor(v)).all() for v in stats.values())
    return total.detach(), {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}


@changed
@torch.no_grad()
def test_what_is_not_seen_and_the_order_of_regions_change_no_round(case, change):
    head = make(case)
    sets, gallery = sides(head)
    want = head.score_rounds(sets, gallery)
    found = head.score_rounds(sets, head.prepare_gallery(change(images())))
    torch.testing.assert_close(found, want, **TOL)


@changed
def test_what_is_not_seen_and_the_order_of_regions_change_nothing_in_training(case, change):
    head = without_dropout(case).train()
    state = {key: value.clone() for key, value in head.state_dict().items()}
    want, plain = step(head, images())
    moved = {key: value.clone() for key, value in head.state_dict().items()}
    head.load_state_dict(state)
    found, again = step(head, change(images()))
    torch.testing.assert_close(found, want, **TOL)
    assert len(plain) > 3
    assert_same_gradients(again, plain)
    for key, value in head.state_dict().items():
        torch.testing.assert_close(value, moved[key], **TOL)


@every_head
def test_rows_of_zeros_give_finite_rounds_losses_and_gradients(case):
    name, options = CASES[case]
    torch.manual_seed(0)
    sizes = {"sim_dim": 5, "dropout": 0.0} if name == "hmrn" else {}
    head = create_head(name, image_dim=8, text_dim=8, dim=8, image_project=False, **{**sizes, **options}).train()
    generator = torch.Generator().manual_seed(3)
    regions, said = torch.randn(3, 5, 8, generator=generator), torch.randn(12, 8, generator=generator)
    regions[0, 2], regions[1], said[1], said[4:8] = 0, 0, 0, 0  # a region, an image, a sentence, a whole set
    regions.requires_grad_()
    said.requires_grad_()
    sets = head.combine_sets(head.prepare_queries(Tokens.from_pooled(said)), [4, 4, 4])
    gallery = head.prepare_gallery(Tokens.from_local(regions))
    rounds = head.score_rounds(sets, gallery)
    loss = InfoNCE(1 / 10, learnable=False) if name == "hmrn" else HardestHinge(0.2)
    (head.training_loss(sets, gallery, loss)[0] + rounds.sum()).backward()
    for values in (rounds, regions.grad, said.grad, *(p.grad for p in head.parameters())):
        assert values is None or torch.isfinite(values).all()


@every_head
def test_one_image_one_region_one_sentence(case):
    head = make(case)
    want = head.score_rounds(*sides(head))
    assert SIZES[2] == 1
    place = sum(SIZES[:2])
    texts = head.prepare_queries(sentences()[place : place + 1])
    gallery = head.prepare_gallery(Tokens.from_local(images().local[2:3, :1]))
    found = head.score_rounds(head.combine_sets(texts, [1]), gallery)
    assert found.shape == (1, 1, 1)
    torch.testing.assert_close(found[0, 0, 0], want[0, 2, 2], **TOL)
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
