"""Padding further, hidden tokens in the middle, and the order of regions change no score and no gradient.

Every option of every head over local tokens, wide enough for the fast products, in evaluation and in training.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tests.heads.local_cases import assert_same_gradients, gradients
from xretrieve.heads import create_head
from xretrieve.heads.attention import FEATURE_NORMS
from xretrieve.heads.local import LocalHead
from xretrieve.tokens import Tokens

WIDTH, WORDS, REGIONS = 64, (6, 4, 1, 6, 2, 3, 5, 6), (7, 3, 1, 7, 5)
TOL = {"atol": 2e-6, "rtol": 2e-6}


def tshsr(context: str, gate: str, fusion: str, readout: str, streams: str = "both") -> dict[str, Any]:
    return {"context": context, "gate": gate, "fusion": fusion, "readout": readout, "streams": streams, "levels": 2}


CASES: list[tuple[str, dict[str, Any]]] = [
    *(("scan", {"stream": s, "feature_norm": norm}) for s, norm in itertools.product(("t2i", "i2t"), FEATURE_NORMS)),
    *(("scan", {"stream": s, "pooling": p}) for s, p in itertools.product(("t2i", "i2t"), ("Mean", "Max", "Sum"))),
    *(("sgr", {"stream": s}) for s in ("t2i", "i2t")),
    *(("saf", {"stream": s, "saf_norm": n}) for s, n in itertools.product(("t2i", "i2t"), ("caption", "batch"))),
    # every pair of options of TSHSR
    ("tshsr", tshsr("cluster", "vector", "mean", "global")),
    ("tshsr", tshsr("cluster", "scalar", "concat", "saf")),
    ("tshsr", tshsr("cluster", "vector", "logit", "saf") | {"saf_norm": "batch"}),
    ("tshsr", tshsr("mean", "scalar", "mean", "saf")),
    ("tshsr", tshsr("mean", "vector", "concat", "global")),
    ("tshsr", tshsr("mean", "scalar", "logit", "global")),
    ("tshsr", tshsr("none", "vector", "mean", "saf")),
    ("tshsr", tshsr("none", "vector", "concat", "global")),
    ("tshsr", tshsr("cluster", "scalar", "mean", "global", "t2i")),
    ("tshsr", tshsr("mean", "vector", "mean", "saf", "i2t")),
]
every_option = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda x: x if isinstance(x, str) else str(
    "-".join(map(str, x.values()))))  # fmt: skip


def make(name: str, options: dict[str, Any], project: bool = True) -> LocalHead:
    """A head without dropout, with weights large enough that every term counts."""
    torch.manual_seed(0)
    sizes = {"dim": WIDTH} if name == "scan" else {"dim": WIDTH, "sim_dim": WIDTH, "dropout": 0.0}
    sides = {"image_dim": WIDTH, "text_dim": WIDTH, "image_project": project, "text_project": project}
    head = create_head(name, **sides, **sizes, **options)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert isinstance(head, LocalHead)
    return head


def sides() -> tuple[Tokens, Tokens]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for lengths in (WORDS, REGIONS):
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        made.append(Tokens.from_local(torch.randn(*mask.shape, WIDTH, generator=generator), mask))
    return made[0], made[1]


def further(tokens: Tokens) -> Tokens:
    """Padded by three more places, all padding spoiled."""
    padded = tokens.pad_to(tokens.local.shape[1] + 3)
    padded.local[~padded.mask] = float("nan")
    padded.local[:, -1] = 1e9
    return padded


def holed(tokens: Tokens) -> Tokens:
    """A token that is not to be seen before the last two places."""
    n, length, d = tokens.local.shape
    local, mask = torch.full((n, length + 1, d), float("nan")), torch.zeros(n, length + 1, dtype=torch.bool)
    kept = [i for i in range(length + 1) if i != length - 2]
    local[:, kept], mask[:, kept] = tokens.local, tokens.mask
    return Tokens(local, mask, tokens.pooled)


def turned(tokens: Tokens) -> Tokens:
    """The places in another order, so that padding comes first for some."""
    order = torch.randperm(tokens.local.shape[1], generator=torch.Generator().manual_seed(2))
    return Tokens(tokens.local[:, order], tokens.mask[:, order], tokens.pooled)


@every_option
@pytest.mark.parametrize("training", [False, True])
def test_what_is_not_seen_and_the_order_change_no_score_and_no_gradient(name, options, training):
    head, (texts, images) = make(name, options).train(training), sides()
    state = {key: value.clone() for key, value in head.state_dict().items()}
    want = head.score(texts, images).detach()
    plain = gradients(head, texts, images)
    assert torch.isfinite(want).all() and want.std() > 1e-4 and plain
    for change in (further, holed, turned):
        head.load_state_dict(state)  # statistics that training moves
        torch.testing.assert_close(head.score(change(texts), change(images)).detach(), want, **TOL)
        with torch.no_grad():
            head.load_state_dict(state)
            torch.testing.assert_close(head.score(change(texts), change(images)), want, **TOL)
        assert_same_gradients(gradients(head, change(texts), change(images)), plain)


@every_option
def test_rows_of_zeros_give_finite_scores_and_gradients(name, options):
    head, (texts, images) = make(name, options, project=False).train(), sides()
    texts.local[0, 1], texts.local[2], images.local[0, 2], images.local[1] = 0, 0, 0, 0
    texts.local.requires_grad_()
    images.local.requires_grad_()
    scores = head.training_scores(head.prepare_queries(texts), head.prepare_gallery(images))
    sum(s.sum() for s in scores.values()).backward()
    for values in (*scores.values(), texts.local.grad, images.local.grad, *(p.grad for p in head.parameters())):
        assert values is None or torch.isfinite(values).all()


@every_option
def test_one_image_one_caption_one_token_each(name, options):
    head, (texts, images) = make(name, options).eval(), sides()
    want = head.score(texts, images)
    assert WORDS[2] == REGIONS[2] == 1
    one, other = (Tokens.from_local(side.local[2:3, :1]) for side in (texts, images))
    torch.testing.assert_close(head.score(one, other)[0, 0], want[2, 2], **TOL)
    torch.testing.assert_close(head.score(one, images)[0], want[2], **TOL)
    torch.testing.assert_close(head.score(texts, other)[:, 0], want[:, 2], **TOL)
    assert all(torch.isfinite(g).all() for g in gradients(head.train(), one, other).values())
