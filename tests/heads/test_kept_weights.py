"""What a head makes of its weights is kept between searches, and made again when a weight is written to."""

import copy

import pytest
import torch

from xretrieve.heads import create_head
from xretrieve.heads.scoring import score_pairs
from xretrieve.tokens import Tokens


@pytest.fixture
def scored():
    torch.manual_seed(0)
    head = create_head("tshsr", image_dim=8, text_dim=6, dim=64, sim_dim=64).eval()
    images = head.prepare_gallery(Tokens.from_local(torch.randn(5, 3, 8)))
    texts = head.prepare_queries(Tokens.from_local(torch.randn(2, 4, 6)))
    candidates = torch.tensor([[0, 1, 2], [4, 3, 0]])
    return head, lambda: score_pairs(head, texts, images, candidates)


def test_in_inference_mode_it_is_made_once_and_scores_stay(scored):
    head, score = scored
    with torch.no_grad():
        plain = score()
    assert head._folded is None, "only inference mode keeps it"
    with torch.inference_mode():
        first, kept = score(), head.folded()
        assert torch.equal(score(), first) and head.folded() is kept
    torch.testing.assert_close(first, plain)


def test_a_weight_that_is_written_to_is_read_again(scored):
    head, score = scored
    with torch.inference_mode():
        before = score()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(1.1)
        plain = score()
    with torch.inference_mode():
        after = score()
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, plain)


def test_it_is_no_part_of_what_is_saved_or_copied(scored):
    head, score = scored
    keys = list(head.state_dict())
    with torch.inference_mode():
        score()
    assert list(head.state_dict()) == keys
    assert head._folded is not None and copy.deepcopy(head)._folded is None
