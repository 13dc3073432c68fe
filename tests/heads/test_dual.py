"""Dual encoder and cosine heads: padding, masks, shapes, and the poolings against slow references."""

from __future__ import annotations

import pytest
import torch

from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head, list_heads
from xretrieve.heads.base import l2
from xretrieve.heads.pooling import create_pooling
from xretrieve.tokens import Prepared, Tokens

POOLINGS = ["mean", "max", "meanmax", "attention", "gpo"]


def ragged_tokens(lengths=(4, 2, 1), longest=4, width=6, seed=0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Tokens.from_local(torch.randn(len(lengths), longest, width, generator=generator), mask)


def head_with(pool: str):
    torch.manual_seed(0)
    head = create_head("dual", image_dim=7, text_dim=6, dim=8, image_pool=pool, text_pool=pool, image_hidden=5)
    with torch.no_grad():  # leave the special starts (zero attention logits) so that every term matters
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


def gradients(head, texts, images):
    head.zero_grad()
    weights = torch.linspace(-1, 1, len(texts) * len(images)).view(len(texts), len(images))
    (head.score(texts, images) * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in head.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("pool", POOLINGS)
def test_padding_further_changes_no_score_and_no_gradient(pool):
    head, texts, images = head_with(pool), ragged_tokens(), ragged_tokens((5, 3), 5, 7, seed=1)
    padded_texts, padded_images = texts.pad_to(9), images.pad_to(11)
    padded_texts.local[:, 4:] = float("nan")  # whatever lies in the padding must not leak
    padded_images.local[:, 5:] = 1e9
    torch.testing.assert_close(head.score(padded_texts, padded_images), head.score(texts, images), atol=1e-6, rtol=0)
    plain, padded = gradients(head, texts, images), gradients(head, padded_texts, padded_images)
    assert plain.keys() == padded.keys()
    for name in plain:
        assert torch.isfinite(padded[name]).all(), name
        torch.testing.assert_close(padded[name], plain[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pool", POOLINGS)
def test_row_of_a_batch_equals_the_item_alone(pool):
    head, texts = head_with(pool), ragged_tokens()
    together = head.prepare_queries(texts).pooled
    for row, length in enumerate((4, 2, 1)):
        alone = Tokens.from_local(texts.local[row : row + 1, :length])
        torch.testing.assert_close(head.prepare_queries(alone).pooled[0], together[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("pool", ["mean", "max", "meanmax"])
def test_pooling_against_a_loop(pool):
    tokens = ragged_tokens()
    got = create_pooling(pool, 6)(tokens.local, tokens.mask)
    for row, length in enumerate((4, 2, 1)):
        real = tokens.local[row, :length]
        want = {"mean": real.mean(0), "max": real.amax(0), "meanmax": real.mean(0) + real.amax(0)}[pool]
        torch.testing.assert_close(got[row], want)


def test_gpo_weights_sum_to_one_and_rank_by_value():
    torch.manual_seed(0)
    pool, tokens = create_pooling("gpo", 6), ragged_tokens()
    weights = pool._weights(tokens.lengths, 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(3))
    assert (weights[~tokens.mask] == 0).all()
    row = 1  # two real tokens
    ranked = tokens.local[row, :2].sort(0, descending=True).values
    want = (weights[row, :2, None] * ranked).sum(0)
    torch.testing.assert_close(pool(tokens.local, tokens.mask)[row], want)


def test_attention_pooling_starts_as_the_mean():
    tokens = ragged_tokens(width=8)
    torch.testing.assert_close(
        create_pooling("attention", 8)(tokens.local, tokens.mask), create_pooling("mean", 8)(tokens.local, tokens.mask)
    )


def test_scores_are_cosines_and_prepared_sides_are_taken_as_they_are():
    head, texts, images = head_with("mean"), ragged_tokens(), ragged_tokens((5, 3), 5, 7, seed=1)
    queries, gallery = head.prepare_queries(texts), head.prepare_gallery(images)
    assert isinstance(queries, Prepared) and tuple(queries.pooled.shape) == (3, 8)
    torch.testing.assert_close(queries.pooled.norm(dim=-1), torch.ones(3))
    scores = head.score(texts, images)
    assert tuple(scores.shape) == (3, 2)
    torch.testing.assert_close(head.score(queries, gallery), scores)
    torch.testing.assert_close(scores[2, 1], torch.cosine_similarity(queries.pooled[2], gallery.pooled[1], dim=0))


def test_combined_texts_score_the_mean_of_their_scores():
    head, texts, images = head_with("mean"), ragged_tokens(), ragged_tokens((5, 3), 5, 7, seed=1)
    queries = head.prepare_queries(texts)
    torch.testing.assert_close(head.score(head.combine_texts(queries), images)[0], head.score(queries, images).mean(0))


def test_image_and_text_combine_to_the_normalised_sum():
    head, texts, images = head_with("mean"), ragged_tokens(), ragged_tokens((5, 3), 5, 7, seed=1)
    image, text = head.prepare_gallery(images[:1]), head.prepare_queries(texts[:1])
    total = image.pooled + text.pooled
    torch.testing.assert_close(head.combine_image_text(image, text).pooled, total / total.norm())


def test_l2_has_no_nan_gradient_at_a_zero_row():
    x = torch.zeros(2, 3, requires_grad=True)
    l2(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_an_image_without_any_token_gives_a_finite_score():
    for pool in POOLINGS:
        head, images = head_with(pool), ragged_tokens((3, 0), 3, 7)
        assert torch.isfinite(head.score(ragged_tokens(), images)).all(), pool


def test_cosine_needs_a_shared_space_and_scores_pooled_vectors():
    with pytest.raises(XRetrieveError, match="share a space.*7.*6"):
        create_head("cosine", image_dim=7, text_dim=6)
    head = create_head("cosine", image_dim=2, text_dim=2)
    texts = Tokens.from_pooled(torch.tensor([[3.0, 0.0]]))
    images = Tokens.from_pooled(torch.tensor([[0.0, 2.0], [5.0, 5.0]]))
    torch.testing.assert_close(head.score(texts, images), torch.tensor([[0.0, 0.5**0.5]]))


def test_unknown_names_name_the_nearest():
    assert {"cosine", "dual"} <= set(list_heads())
    with pytest.raises(XRetrieveError, match="did you mean 'dual'"):
        create_head("dua", image_dim=1, text_dim=1)
    with pytest.raises(XRetrieveError, match="did you mean 'image_pool'"):
        create_head("dual", image_dim=1, text_dim=1, image_pol="mean")
    with pytest.raises(XRetrieveError, match="unknown pooling 'men'; did you mean 'mean'"):
        create_head("dual", image_dim=1, text_dim=1, image_pool="men")
    with pytest.raises(XRetrieveError, match="needs dim=6"):
        create_head("dual", image_dim=7, text_dim=6, dim=8, text_project=False)


def test_attention_pooling_needs_a_width_that_its_slices_divide():
    with pytest.raises(XRetrieveError, match="12 is no multiple of 8"):
        create_pooling("attention", 12)


def test_local_source_without_local_tokens_says_what_to_set():
    head = create_head("dual", image_dim=4, text_dim=4, dim=4)
    with pytest.raises(XRetrieveError, match="source to 'pooled'"):
        head.prepare_gallery(Tokens.from_pooled(torch.ones(1, 4)))
