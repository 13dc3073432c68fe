"""The simple combinations turn by turn are those that the evaluation makes of all rounds at once."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import images, make, sentences
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.fusion import combine_rounds
from xretrieve.heads.scoring import score_matrix
from xretrieve.heads.turns import Held, Turns
from xretrieve.heads.turns_fused import growing, text_to_add
from xretrieve.tokens import Tokens

COMBINE = ("mean_similarity", "rank_fusion", "paragraph")


def sides(name):
    torch.manual_seed(0)
    if name == "hmrn":
        head = make("hmrn-i2t")
    elif name == "dual":
        head = create_head("dual", image_dim=7, text_dim=6, dim=4, text_source="pooled").eval()
    else:
        head = create_head("scan", image_dim=7, text_dim=6, dim=6).eval()
    said = sentences((4,))
    if name == "scan":  # texts of one word
        said = Tokens.from_local(said.pooled[:, None])
    return head, head.prepare_queries(said), head.prepare_gallery(images(tuple([3, 5, 1] * 7)))


@pytest.mark.parametrize("name", ["hmrn", "dual", "scan"])
@pytest.mark.parametrize("combine", COMBINE)
@torch.no_grad()
def test_turns_are_the_rounds(name, combine):
    head, texts, gallery = sides(name)
    made = growing(combine, head, Held(gallery))
    alone = score_matrix(head, texts, gallery)
    rounds = combine_rounds(alone, [4], combine)[:, :, 0]  # (4,N)
    for turn in (0, 1, "undo", 1, 2, 3):
        if turn == "undo":
            made.undo()
            turn = 0
        else:
            made.add(texts[turn : turn + 1])
        torch.testing.assert_close(made.scores(), rounds[turn], atol=2e-6, rtol=0)
        found = made.top_k(4)
        order = rounds[turn].sort(descending=True, stable=True)
        torch.testing.assert_close(found.scores[0], order.values[:4], atol=2e-6, rtol=0)
        assert torch.equal(made.top_k(4, bounded=False).rows, found.rows)


def test_nothing_said_is_nothing_to_rank_or_to_take_back():
    head, _, gallery = sides("dual")
    for combine in COMBINE:
        made = growing(combine, head, Held(gallery))
        for call in (made.undo, made.scores, lambda made=made: made.top_k(3)):
            with pytest.raises(XRetrieveError, match="no sentence to take back|nothing has been said"):
                call()
    assert isinstance(growing("", head, Held(gallery)), Turns)
    with pytest.raises(XRetrieveError, match="did you mean 'rank_fusion'"):
        growing("rank_fuson", head, Held(gallery))


def test_a_paragraph_is_all_that_was_said():
    said = ["a dog", "snow", "a sledge"]
    assert text_to_add("paragraph", said) == "a dog;snow;a sledge" and text_to_add("rank_fusion", said) == "a sledge"
