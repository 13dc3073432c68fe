"""ONNX graphs give the numbers of the matcher they were made from, for any batch and length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import xretrieve as xr
from xretrieve.backbones.onnx_graph import OnnxBackbone
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.matcher import build_head
from xretrieve.sharing import export
from xretrieve.sharing.graphs import TOLERANCE

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'xretrieve[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'xretrieve[onnx]'")

TEXTS = ["a b", "a b c d e c b a", "b", "c a b d"]
WORDS = Vocabulary.build(["a b c d e"], min_count=1)


def matcher(image: Any, text: Any, head: str, **options: Any) -> xr.Matcher:
    return xr.Matcher(image, text, build_head(head, image, text, **options), name="tiny")


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)) for _ in range(count)]


def exported(made: xr.Matcher, folder: Path) -> xr.Matcher:
    made.save(folder / "made")
    export(folder / "made", folder / "onnx", "onnx")
    back = xr.load(folder / "onnx")
    assert isinstance(back, xr.Matcher) and isinstance(back.text, OnnxBackbone)
    assert not list((folder / "onnx").rglob("model.safetensors")), "the weights are in the graphs"
    return back


def vectors(count: int, dim: int = 6) -> list[np.ndarray]:
    return list(np.random.default_rng(2).normal(size=(count, dim)).astype(np.float32))


def close(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max()))


def test_a_graph_of_words_takes_any_batch_and_length_and_scores_as_torch_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = matcher(xr.create_backbone("features", modality="image", dim=6),
                   xr.create_backbone("words", vocab=WORDS, word_dim=5, dim=8), "dual", dim=8, text_pool="gpo",
                   image_source="pooled")  # fmt: skip
    back = exported(made, tmp_path)
    for texts in (TEXTS, TEXTS[:1], TEXTS[1:] * 3):
        theirs, mine = made.text.encode(texts), back.text.encode(texts)
        close(mine.local, theirs.local)
        assert torch.equal(mine.mask, theirs.mask)
        close(back.score(back.encode_texts(texts), back.encode_images(vectors(5))),
              made.score(made.encode_texts(texts), made.encode_images(vectors(5))))  # fmt: skip
    assert back.text.token_texts(["a q"]) == made.text.token_texts(["a q"])

    # what the head does on one side is in the graph too, for programs without torch
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx/text/model.onnx"))
    batch = {name: value.numpy() for name, value in made.text.prepare(TEXTS).items()}
    (vector,) = session.run(["vector"], batch)
    close(torch.from_numpy(vector), made.encode_texts(TEXTS).pooled)

    # the card and onnx.json say what was checked
    about = json.loads((tmp_path / "onnx/onnx.json").read_text())["sides"]
    assert about["text"]["inputs"]["ids"] == ["tensor(int64)", "batch", "length"]
    assert 0 <= about["text"]["largest_difference"] <= TOLERANCE
    assert "`text/model.onnx`" in (tmp_path / "onnx/README.md").read_text()

    # a copy can be saved, and is the same model; it cannot be trained
    back.save(tmp_path / "copy")
    assert xr.load(tmp_path / "copy").fingerprint() == back.fingerprint() != made.fingerprint()
    assert back.text.frozen


def test_a_head_that_looks_at_values_is_one_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = matcher(xr.create_backbone("features", modality="image", dim=6),
                   xr.create_backbone("features", modality="text", dim=6), "cosine")  # fmt: skip
    made.save(tmp_path / "made")
    monkeypatch.setattr(type(made.head), "prepare_gallery", lambda self, tokens: 1 / 0 if tokens.pooled.any() else None)
    with pytest.raises(xr.XRetrieveError, match=r"image side of 'tiny'.*head 'cosine'.*cannot be exported.*--folder"):
        export(tmp_path / "made", tmp_path / "onnx", "onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]


def test_without_onnxruntime_the_error_names_the_extra(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(xr.XRetrieveError, match=r"pip install 'xretrieve\[onnx\]'"):
        export(run, tmp_path / "onnx", "onnx")


def test_a_broken_graph_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    made = matcher(xr.create_backbone("features", modality="image", dim=6),
                   xr.create_backbone("features", modality="text", dim=6), "cosine")  # fmt: skip
    made.save(tmp_path / "made")
    (tmp_path / "made/text/model.onnx").write_bytes(b"no graph")
    with pytest.raises(xr.XRetrieveError, match="text/model.onnx: not a graph"):
        xr.load(tmp_path / "made").encode_texts(vectors(2))


@pytest.mark.slow
@pytest.mark.parametrize("head, options", [
    ("sgr", {"dim": 16, "sim_dim": 8}),
    ("scan", {"dim": 16}),
    ("saf", {"dim": 16, "sim_dim": 8}),
    ("dual", {"dim": 16, "image_pool": "gpo", "text_pool": "attention"}),
])  # fmt: skip
def test_pictures_and_words_of_each_kind_of_head(head: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    image = xr.create_backbone("timm:test_resnet", pretrained=False, size=32)
    made = matcher(image, xr.create_backbone("words", vocab=WORDS, word_dim=5, dim=16), head, **options).eval()
    back = exported(made, tmp_path)
    close(back.score(back.encode_texts(TEXTS), back.encode_images(pictures(11))),
          made.score(made.encode_texts(TEXTS), made.encode_images(pictures(11))))  # fmt: skip


@pytest.mark.slow
def test_sentences_and_regions_of_query_sets(tmp_path: Path) -> None:
    torch.manual_seed(0)
    image, text = xr.create_backbone("regions", dim=12), xr.create_backbone("sentences", vocab=WORDS, word_dim=5, dim=8)
    made = matcher(image, text, "hmrn", dim=8).eval()
    back = exported(made, tmp_path)
    close(back.encode_sets([TEXTS, TEXTS[:2]]).pooled, made.encode_sets([TEXTS, TEXTS[:2]]).pooled)
    batch = image.example(4, 9)
    close(back.image(batch).local, made.image(batch).local)


@pytest.mark.slow
def test_both_towers_of_an_open_clip_model(tmp_path: Path) -> None:
    import open_clip

    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (tmp_path / "share-vit.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "share-vit.json")
    torch.manual_seed(0)
    how = {"pretrained": False}
    image = xr.create_backbone("open_clip:share-vit", modality="image", **how)
    made = matcher(image, xr.create_backbone("open_clip:share-vit", modality="text", **how), "cosine").eval()
    back = exported(made, tmp_path)
    assert back.text.encode(TEXTS).local.shape == made.text.encode(TEXTS).local.shape
    close(back.score(back.encode_texts(TEXTS), back.encode_images(pictures())),
          made.score(made.encode_texts(TEXTS), made.encode_images(pictures())))  # fmt: skip
