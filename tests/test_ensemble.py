"""The average of several matchers: what it ranks by, what it encodes once, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import xretrieve as xr
from xretrieve.backbones import create_backbone
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.ensemble import Ensemble, fuse
from xretrieve.errors import XRetrieveError
from xretrieve.matcher import Matcher, build_head

CAPTIONS = ["a red square", "a blue circle", "two green stars on the left", "one yellow star"]
SMALL = {"sgr": {"sim_dim": 5, "steps": 1}, "saf": {"sim_dim": 5}, "scan": {}, "dual": {}}


@pytest.fixture
def rows(tmp_path: Path) -> list[FeatureRow]:
    np.save(tmp_path / "x_ims.npy", np.random.default_rng(0).standard_normal((4, 3, 6)).astype(np.float32))
    return [FeatureRow(tmp_path / "x_ims.npy", i) for i in range(4)]


def member(head: str, seed: int = 0, **options: object) -> Matcher:
    torch.manual_seed(seed)
    image = create_backbone("regions", dim=6)
    text = create_backbone("words", captions=CAPTIONS, min_count=1, word_dim=8, dim=8)
    return Matcher(image, text, build_head(head, image, text, dim=8, **SMALL[head], **options), name=f"{head}-{seed}")


def scores(matcher: Matcher | Ensemble, rows: list[FeatureRow]) -> torch.Tensor:
    return matcher.score(matcher.encode_texts(CAPTIONS), matcher.encode_images(rows))


def test_sigmoid_heads_are_averaged_as_probabilities_without_saturation(rows):
    parts = {"a": member("sgr"), "b": member("saf", 1), "c": member("sgr", 2, stream="i2t")}
    found = scores(Ensemble(parts), rows)
    mean = torch.stack([scores(m, rows).double().sigmoid() for m in parts.values()]).mean(0)
    torch.testing.assert_close(found.double(), torch.logit(mean), atol=1e-5, rtol=0)
    heads = [m.head for m in parts.values()]
    high = [torch.tensor([40.0, 41.0, 42.0]) + i for i in range(3)]  # every sigmoid is 1 in float32
    assert bool((fuse(heads, high).diff() > 0).all())
    torch.testing.assert_close(fuse(heads, high, "logit"), torch.tensor([41.0, 42.0, 43.0]))


def test_cosines_are_averaged_as_they_are(rows):
    parts = {"t2i": member("scan"), "i2t": member("scan", 1, stream="i2t"), "dual": member("dual", 2)}
    want = torch.stack([scores(m, rows) for m in parts.values()]).mean(0)
    torch.testing.assert_close(scores(Ensemble(parts), rows), want)


@pytest.mark.parametrize(
    "heads, fusion, said",
    [
        (("sgr", "scan"), "mean", "'sgr' gives logits of probabilities and head 'scan' cosines"),
        (("scan", "dual"), "logit", "fusion 'logit' is for heads that give logits"),
        (("sgr", "saf"), "meen", "did you mean 'mean'"),
        (("sgr",), "mean", "at least two members"),
    ],
)
def test_what_cannot_be_averaged_is_said(heads, fusion, said):
    with pytest.raises(XRetrieveError, match=said):
        Ensemble({name: member(name) for name in heads}, fusion)


def test_a_shared_backbone_sees_each_item_once(monkeypatch):
    first, second, other = member("sgr"), member("saf"), member("sgr", 7)  # seed 7: other word vectors
    second.text.load_state_dict(first.text.state_dict())
    calls = []
    kind = type(first.text)
    plain = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, *a, **k: calls.append(self) or plain(self, *a, **k))
    bundle = Ensemble({"a": first, "b": second, "c": other}).encode_texts(CAPTIONS)
    assert len(calls) == 2 and len(bundle) == 4
    for matcher, part in zip((first, second, other), bundle.parts, strict=True):
        torch.testing.assert_close(part.pooled, matcher.encode_texts(CAPTIONS).pooled)


def test_saved_and_loaded_it_gives_the_same_scores(tmp_path: Path, rows):
    before = Ensemble({"sgr": member("sgr"), "saf": member("saf", 1)}, "logit", name="both")
    after = xr.load(before.save(tmp_path / "saved"))
    assert isinstance(after, Ensemble) and after.name == "both" and after.fusion == "logit"
    assert after.fingerprint() == before.fingerprint()
    other = Ensemble({"a": before.members[0], "b": before.members[1]}, "mean")
    assert other.fingerprint() != before.fingerprint()
    torch.testing.assert_close(scores(after, rows), scores(before, rows))
    with pytest.raises(XRetrieveError, match="takes no options"):
        xr.load(tmp_path / "saved", size=224)
    path = tmp_path / "saved/ensemble.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"members": ["../../etc"]}))
    with pytest.raises(XRetrieveError, match="is not an ensemble of format 1"):
        xr.load(tmp_path / "saved")


def test_it_is_evaluated_like_a_matcher_and_marked_with_a_star(rows):
    data = RetrievalDataset(
        name="toy",
        split="test",
        image_ids=list("abcd"),
        images=rows,
        captions=CAPTIONS,
        caption_ids=list("1234"),
        owner=np.arange(4),
        expected_images=4,
        layout="toy",
    )
    ensemble = Ensemble({"sgr": member("sgr"), "saf": member("saf", 1)}, name="both")
    report = xr.evaluate(ensemble, data, protocol="full", bootstrap=0)
    assert report.name == "both*" and report.matcher["fingerprint"] == ensemble.fingerprint()
    by_hand = scores(ensemble, rows)
    ranks = (by_hand > by_hand.diag()[:, None]).sum(1)
    assert report.t2i_ranks.tolist() == ranks.tolist()
    assert xr.evaluate(ensemble, data, protocol="full", bootstrap=0, name="mine*").name == "mine*"


def test_what_an_average_cannot_do_is_one_sentence(tmp_path: Path):
    ensemble = Ensemble({"sgr": member("sgr"), "saf": member("saf", 1)}, name="both", source="runs/both")
    for call in (lambda: ensemble.index("photos", tmp_path / "x.xr"), lambda: ensemble.encode_query("a dog"),
                 lambda: ensemble.image, lambda: ensemble.text, lambda: ensemble.head,
                 lambda: xr.Gallery.build(ensemble, tmp_path, tmp_path / "x.xr")):  # fmt: skip
        with pytest.raises(XRetrieveError, match="gallery: runs/both/members/sgr, runs/both/members/saf$"):
            call()
