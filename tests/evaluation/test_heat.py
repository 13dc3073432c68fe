"""Reports of heads that compare words and regions: all pairs are scored, and samples show where captions are found."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.ensemble import Ensemble
from xretrieve.evaluation import Report, evaluate
from xretrieve.evaluation.evaluator import score_matrix
from xretrieve.evaluation.protocols import Protocol

pytest.importorskip("timm")
WORDS = "red dog snow blue sledge green birds yellow water near".split()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Ten photos, two captions each, of one to nine words in mixed order."""
    root = noise_photos(tmp_path_factory.mktemp("data"), 10)
    rng = np.random.default_rng(0)
    captions = [" ".join(rng.choice(WORDS, 1 + i * 7 % 9)) for i in range(20)]
    ids = [f"{i}.png" for i in range(10)]
    paths = [root / name for name in ids]
    return RetrievalDataset("toy", "test", ids, paths, captions, [f"c{i}" for i in range(20)], np.arange(20) // 2, 10,
                            "toy")  # fmt: skip


@pytest.fixture(scope="module")
def matcher():
    return tiny_matcher("tshsr")


@pytest.mark.parametrize("block", [3, 2048])
def test_scores_come_back_in_the_captions_own_order(dataset, block):
    matcher = tiny_matcher("scan")
    scores, _ = score_matrix(matcher, dataset, block=block)
    wanted = matcher.score(matcher.encode_texts(dataset.captions), matcher.encode_images(dataset.images)).T
    assert np.allclose(scores, wanted.numpy(), atol=1e-5) and np.std(scores) > 0.01
    folded, _ = score_matrix(matcher, dataset, block=block, folds=5)
    for fold in range(5):
        own = np.ix_(range(2 * fold, 2 * fold + 2), range(4 * fold, 4 * fold + 4))
        assert np.allclose(folded[own], wanted.numpy()[own], atol=1e-5)
    assert np.isnan(folded).sum() == 10 * 20 - 5 * 2 * 4


def test_captions_of_like_length_share_a_block(dataset, matcher, monkeypatch):
    seen, score = [], type(matcher).score
    monkeypatch.setattr(type(matcher), "score", lambda self, q, g: seen.append(q.lengths.tolist()) or score(self, q, g))
    score_matrix(matcher, dataset, block=5)
    assert [len(lengths) for lengths in seen] == [5] * 4
    assert all(max(a) <= min(b) for a, b in zip(seen, seen[1:], strict=False)), "short ones first, in every fold"


def test_the_first_hit_of_a_caption_is_shown_under_its_heat(dataset, matcher, tmp_path):
    report = evaluate(matcher, dataset, bootstrap=0)
    captions = {sample.query for sample in report.samples if sample.direction == "t2i"}
    assert set(report.heats) == captions and captions
    for sample in report.samples:
        if sample.direction == "t2i":
            with Image.open(io.BytesIO(report.heats[sample.query])) as heat:
                plain = Image.open(io.BytesIO(report.thumbnails[sample.hits[0].id]))
                assert heat.size == plain.size
                moved = np.abs(np.asarray(heat, float) - np.asarray(plain, float)).mean()
            assert moved > 5, "heat changes the picture"
    folder = report.save(tmp_path / "report")
    page = (folder / "report.html").read_text()
    assert page.count("where it looks in 1") == len(captions) and len(page) < 400_000
    again = Report.load(folder)
    assert again.heats == report.heats and again.thumbnails == report.thumbnails


def test_other_heads_and_rows_of_features_have_no_heat(dataset, tmp_path):
    assert evaluate(tiny_matcher("dual"), dataset, bootstrap=0).heats == {}
    import xretrieve as xr

    np.save(tmp_path / "ims.npy", np.random.default_rng(0).standard_normal((10, 3, 6)).astype(np.float32))
    rows = [FeatureRow(tmp_path / "ims.npy", i) for i in range(10)]
    data = RetrievalDataset("toy", "test", dataset.image_ids, rows, dataset.captions, dataset.caption_ids,
                            dataset.owner, 10, "precomp")  # fmt: skip
    average = Ensemble({"one": tiny_matcher("sgr"), "two": tiny_matcher("saf")})
    assert evaluate(average, dataset, bootstrap=0).heats == {}
    report = evaluate(tiny_matcher("scan", image=xr.create_backbone("regions", dim=6)), data, Protocol("full"),
                      bootstrap=0)  # fmt: skip
    assert report.heats == {} and report["rsum"].value > 0
