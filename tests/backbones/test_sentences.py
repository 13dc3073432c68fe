"""Sentences: one vector per sentence, equal to running both directions of the GRU in full."""

import pytest
import torch

from xretrieve.backbones import create_backbone, load_backbone

TEXTS = ["a man in a red coat", "trees", "the old dog runs", "a man"]


@pytest.fixture
def sentences():
    torch.manual_seed(0)
    return create_backbone("sentences", captions=TEXTS, min_count=1, word_dim=5, dim=7).eval()


def in_full(backbone, batch):
    """The mean of both directions' outputs at the last word, sentence by sentence."""
    rows = []
    for ids, length in zip(batch["ids"], batch["lengths"], strict=True):
        states = backbone.cap_rnn(backbone.embed(ids[None, :length]))[0][0, -1]
        rows.append((states[:7] + states[7:]) / 2 if backbone.options["bidirectional"] else states)
    return torch.stack(rows)


@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_vector_is_the_output_at_the_last_word(bidirectional):
    backbone = create_backbone("sentences", captions=TEXTS, min_count=1, dim=7, bidirectional=bidirectional).eval()
    batch = backbone.prepare(TEXTS)
    assert (batch["ids"][:, 0] != 1).all() and batch["lengths"].tolist() == [7, 2, 5, 3]  # no start word, but an end
    found = backbone(batch)
    assert found.local.shape == (4, 0, 7)
    torch.testing.assert_close(found.pooled, in_full(backbone, batch), atol=1e-6, rtol=0)


def test_sentences_that_do_not_end_alike_have_their_own_backward_half(sentences):
    batch = {"ids": torch.tensor([[4, 5, 2], [6, 7, 4], [6, 0, 0]]), "lengths": torch.tensor([3, 3, 1])}
    want = in_full(sentences, batch)
    torch.testing.assert_close(sentences(batch).pooled, want, atol=1e-6, rtol=0)
    sentences.dropout.p = 0.0
    torch.testing.assert_close(sentences.train()(batch).pooled, want, atol=1e-6, rtol=0)


def test_gradients_are_those_of_both_directions_in_full(sentences):
    batch, weights = sentences.prepare(TEXTS), torch.linspace(-1, 1, 28).view(4, 7)
    (in_full(sentences, batch) * weights).sum().backward()
    want = {name: p.grad.clone() for name, p in sentences.named_parameters() if p.requires_grad}
    sentences.zero_grad()
    (sentences(batch).pooled * weights).sum().backward()
    for name, grad in want.items():
        torch.testing.assert_close(dict(sentences.named_parameters())[name].grad, grad, atol=1e-6, rtol=1e-4)
    assert want.keys() == {n for n, _ in sentences.named_parameters()} - {"cap_rnn.weight_hh_l0_reverse"}


def test_words_beyond_the_end_change_nothing(sentences):
    batch = sentences.prepare(TEXTS)
    want = sentences(batch).pooled
    batch["ids"] = torch.nn.functional.pad(batch["ids"], (0, 3), value=5)
    torch.testing.assert_close(sentences(batch).pooled, want, atol=1e-6, rtol=0)


def test_saved_sentences_load_with_their_vocabulary(sentences, tmp_path):
    sentences.save(tmp_path / "s")
    again = load_backbone(tmp_path / "s")
    torch.testing.assert_close(again.encode(TEXTS).pooled, sentences.encode(TEXTS).pooled)
    assert again.options == sentences.options and again.token_texts(TEXTS) == [[]] * 4
