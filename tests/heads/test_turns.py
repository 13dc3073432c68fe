"""A growing set gives at every turn what scoring the set from scratch gives."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import CASES, images, make, sentences
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.bound import best
from xretrieve.heads.turns import Turns

LENGTHS = tuple(1 + i % 5 for i in range(40))


@pytest.mark.parametrize("case", [*CASES, "dual"])
@torch.no_grad()
def test_every_turn_equals_the_set_scored_from_scratch(case):
    head = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval() if case == "dual" \
        else make(case)  # fmt: skip
    texts, gallery = head.prepare_queries(sentences((6,))), head.prepare_gallery(images(LENGTHS))
    turns = Turns(head, gallery)
    said: list[int] = []
    for step in (0, 1, 2, "undo", 3, "undo", "undo", 4, 5):
        if step == "undo":
            turns.undo()
            said.pop()
        else:
            turns.add(texts[step : step + 1])
            said.append(step)
        want = head.score(head.combine_sets(texts[said], [len(said)]), gallery)  # (1,N)
        torch.testing.assert_close(turns.scores(), want[0], atol=2e-6, rtol=0)
        cheap, width = turns.bounds()
        assert (cheap <= want[0] + 2e-6).all() and (want[0] <= cheap + width + 2e-6).all()
        found = turns.top_k(5)
        scores, rows = best(want, None, 5)
        torch.testing.assert_close(found.scores, scores, atol=2e-6, rtol=0)
        assert torch.equal(found.rows, rows) and torch.equal(turns.top_k(5, bounded=False).rows, rows)
        assert 0 < found.share <= 1 and len(turns) == len(said)


@torch.no_grad()
def test_the_reasoning_is_spared_where_its_weight_is_small():
    head = make("hmrn-t2i")
    texts, gallery = head.prepare_queries(sentences((4,))), head.prepare_gallery(images(LENGTHS * 10))
    turns, shares = Turns(head, gallery), []
    for row in range(4):
        turns.add(texts[row : row + 1])
        shares.append(turns.top_k(1).share)
    assert shares[0] == 16 / 400 and max(shares) < 1


def test_wrong_turns_are_refused():
    head = make("hmrn-i2t")
    texts, gallery = head.prepare_queries(sentences((2,))), head.prepare_gallery(images())
    turns = Turns(head, gallery)
    for call in (turns.undo, turns.bounds, lambda: turns.add(texts), lambda: turns.top_k(0)):
        with pytest.raises(XRetrieveError):
            call()
    with pytest.raises(XRetrieveError, match="'scan' scores single texts"):
        Turns(create_head("scan", image_dim=7, text_dim=6, dim=6), gallery)
