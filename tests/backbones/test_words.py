"""Vocabulary and BiGRU words: numbers, padding, order, save and load."""

import copy
import json
import re

import numpy as np
import pytest
import torch

from xretrieve.backbones import create_backbone, load_backbone
from xretrieve.backbones.vocabulary import Vocabulary, tokenize
from xretrieve.errors import XRetrieveError

CAPTIONS = ["a dog runs", "a dog", "a man and a dog run in the snow", "the snow", "a man"]


@pytest.fixture
def words():
    torch.manual_seed(0)
    return create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=6, dim=8).eval()


def test_tokens_keep_punctuation_and_split_clitics_like_the_published_vocabularies():
    assert tokenize("Two dogs, can't run!") == ["two", "dogs", ",", "ca", "n't", "run", "!"]


def test_a_published_vocabulary_keeps_its_own_numbers(data_root):
    path = data_root / "vocab/f30k_precomp_vocab.json"
    vocabulary, raw = Vocabulary.load(path), json.loads(path.read_text())
    assert len(vocabulary) == 8481
    assert vocabulary.numbers == raw["word2idx"]
    assert vocabulary.encode("a zzzz")[0] == 1 and vocabulary.encode("a zzzz")[-2:] == [3, 2]


def test_a_vocabulary_with_a_hole_names_the_missing_number(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"word2idx": {"<pad>": 0, "<start>": 1, "<end>": 2, "<unk>": 2}}))
    with pytest.raises(XRetrieveError, match="number 3"):
        Vocabulary.load(tmp_path / "v.json")


def test_padding_and_order_change_nothing(words):
    together = words.encode(CAPTIONS)
    for i, caption in enumerate(CAPTIONS):
        alone = words.encode([caption])
        length = int(alone.lengths)
        assert int(together.lengths[i]) == length == len(tokenize(caption)) + 2
        torch.testing.assert_close(together.local[i, :length], alone.local[0])
        torch.testing.assert_close(together.pooled[i], alone.pooled[0])
        assert (together.local[i, length:] == 0).all()


@pytest.mark.parametrize("text", ["", "a", "a man and a dog run in the snow"])
def test_a_single_text_is_what_it_is_among_others_and_keeps_the_steps_at_its_ends(words, text, monkeypatch):
    plain = words(words.prepare([text]))  # with gradients: the packed way
    with torch.inference_mode():
        first = words(words.prepare(["the snow"]))
        kept = words._ends
        monkeypatch.setattr("xretrieve.backbones.words.run_gru", None)
        monkeypatch.setattr("xretrieve.backbones.words.ends_of", None)
        alone = words(words.prepare([text]))
        torch.testing.assert_close(alone.local, plain.local)
        torch.testing.assert_close(alone.pooled, plain.pooled)
        assert words._ends is kept and copy.deepcopy(words)._ends is None
        assert torch.equal(words(words.prepare(["the snow"])).local, first.local)


@pytest.mark.parametrize("name", ["embed.weight", "cap_rnn.weight_hh_l0_reverse", "cap_rnn.bias_ih_l0"])
def test_a_weight_that_is_written_to_is_read_again(words, name):
    with torch.inference_mode():
        words(words.prepare(["a dog"]))
    with torch.no_grad():
        words.get_parameter(name).add_(0.5)
        plain = words(words.prepare(["a dog"])).local
    with torch.inference_mode():
        torch.testing.assert_close(words(words.prepare(["a dog"])).local, plain)


def test_ids_beyond_the_length_are_ignored(words):
    batch = words.prepare(CAPTIONS[:2])
    clean = words(batch).local
    batch["ids"][1, int(batch["lengths"][1]) :] = 5
    torch.testing.assert_close(words(batch).local, clean)


def test_states_equal_a_plain_loop_over_the_gru_equations(words):
    ids = words.prepare(["a man runs"])["ids"][0]
    p = dict(words.cap_rnn.named_parameters())

    def walk(order, suffix):
        h, out = torch.zeros(8), {}
        for t in order:
            x = p["weight_ih_l0" + suffix] @ words.embed.weight[ids[t]] + p["bias_ih_l0" + suffix]
            g = p["weight_hh_l0" + suffix] @ h + p["bias_hh_l0" + suffix]
            r, z = torch.sigmoid(x[:8] + g[:8]), torch.sigmoid(x[8:16] + g[8:16])
            h = (1 - z) * torch.tanh(x[16:] + r * g[16:]) + z * h
            out[t] = h
        return torch.stack([out[t] for t in range(len(ids))])

    wanted = (walk(range(len(ids)), "") + walk(range(len(ids) - 1, -1, -1), "_reverse")) / 2
    torch.testing.assert_close(words.encode(["a man runs"]).local[0], wanted)


def test_normalized_states_have_unit_length_and_finite_gradients():
    words = create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=6, dim=8, normalize=True)
    tokens = words(words.prepare(CAPTIONS))
    torch.testing.assert_close(tokens.local.norm(dim=-1)[tokens.mask], torch.ones(int(tokens.mask.sum())))
    tokens.pooled.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in words.parameters())


def test_save_and_load_give_equal_outputs_and_fingerprint(words, tmp_path):
    words.freeze().save(tmp_path / "text")
    again = load_backbone(tmp_path / "text")
    assert again.frozen and again.fingerprint() == words.fingerprint()
    torch.testing.assert_close(again.encode(CAPTIONS).local, words.encode(CAPTIONS).local)
    again.embed.weight[5, 0] += 1
    assert again.fingerprint() != words.fingerprint()


def test_frozen_words_have_no_gradients_and_no_dropout(words):
    words.freeze().train()
    tokens = words(words.prepare(CAPTIONS))
    assert not tokens.local.requires_grad
    torch.testing.assert_close(tokens.local, words(words.prepare(CAPTIONS)).local)


def test_vectors_start_the_embedding_and_a_wrong_width_names_the_right_one(data_root):
    path = data_root / "weights/glove-50d-5k.json"
    words = create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=50, dim=8, vectors=path)
    wanted = torch.tensor(json.loads(path.read_text())["dog"])
    torch.testing.assert_close(words.embed.weight[words.vocabulary.numbers["dog"]].detach(), wanted)
    with pytest.raises(XRetrieveError, match="word_dim=50"):
        create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=300, dim=8, vectors=path)


def test_errors_name_what_to_type():
    with pytest.raises(XRetrieveError, match="vocab=FILE"):
        create_backbone("words")
    with pytest.raises(XRetrieveError, match="did you mean 'word_dim'"):
        create_backbone("words", captions=CAPTIONS, wordim=3)
    with pytest.raises(XRetrieveError, match="did you mean 'words'"):
        create_backbone("wrods")
    with pytest.raises(XRetrieveError, match="did you mean 'text'"):
        create_backbone("words", captions=CAPTIONS, modality="txt")


def test_published_weights_give_the_golden_word_vectors(golden):
    arrays = np.load(golden / "image_text_sgr.npz")
    prefix = "state/txt_enc."
    state = {k.removeprefix(prefix): torch.from_numpy(arrays[k]) for k in arrays.files if k.startswith(prefix)}
    rows, word_dim = state["embed.weight"].shape
    vocabulary = Vocabulary(["<pad>", "<start>", "<end>", "<unk>", *(f"w{i}" for i in range(rows - 4))])
    words = create_backbone("words", vocab=vocabulary, word_dim=word_dim, dim=64, normalize=True).eval()
    words.load_state_dict(state)
    tokens = words({"ids": torch.from_numpy(arrays["in/captions"]), "lengths": torch.from_numpy(arrays["in/lengths"])})
    np.testing.assert_allclose(tokens.local.detach().numpy(), arrays["out/cap_emb"], atol=1e-6)
    assert (tokens.mask.numpy() == arrays["out/word_mask"]).all()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"word2idx": {"<pad>": 0, "<start>": 1, "<unk>": 2, "<end>": 3}},
            "the first four words must be <pad>, <start>",
        ),
        ({"words": []}, "not a vocabulary; it needs word2idx with the numbers 0 .. words - 1"),
        ({"word2idx": {"<pad>": 0, "a": 5}}, "not a vocabulary; it needs word2idx"),
        ({"word2idx": ["<pad>"]}, "not a vocabulary; it needs word2idx"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, content, said):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(XRetrieveError, match=f"vocab.json: (vocabulary: )?{re.escape(said)}"):
        Vocabulary.load(path)


def test_a_word_twice_or_none_at_all_makes_no_vocabulary():
    special = Vocabulary.build(["a"], min_count=1).words[:4]
    with pytest.raises(XRetrieveError, match="'dog' is there twice"):
        Vocabulary([*special, "dog", "cat", "dog"])
    with pytest.raises(XRetrieveError, match="no word is seen 3 times in the captions; lower min_count"):
        Vocabulary.build(["a dog", "a cat"], min_count=3)
