"""Galleries of heads that score token by token: what is kept on disk, the exact scan, the two stages."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.data.base import FeatureRow, RetrievalDataset
from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery, token_files
from xretrieve.gallery.search import Stages
from xretrieve.gallery.store import MAX_PARTS, Store
from xretrieve.heads.scoring import score_pairs
from xretrieve.utils.files import write_json

pytest.importorskip("timm")
COUNT = 14
QUERY = "a red dog near yellow water"


@pytest.fixture(scope="module")
def sgr():
    return tiny_matcher("sgr")


@pytest.fixture(scope="module")
def dual(sgr):
    return tiny_matcher("dual", seed=1, image=sgr.image)


@pytest.fixture
def photos(tmp_path):
    return noise_photos(tmp_path / "photos", COUNT)


@pytest.fixture
def alone(sgr, photos, tmp_path):
    """No coarse space: every picture is scored."""
    return Gallery.build(sgr, photos, tmp_path / "alone.xr")


@pytest.fixture
def riding(sgr, dual, photos, tmp_path):
    """SGR riding on a dual encoder."""
    return Gallery.build(sgr, photos, tmp_path / "riding.xr", coarse=dual)


def exact(matcher, gallery, text=QUERY):
    """id -> score by the matcher itself, float32 all the way."""
    paths = [gallery.path.parent / "photos" / id_ for id_ in gallery.ids]
    scores = matcher.score(matcher.encode_query(text), matcher.encode_images(paths))[0]
    return dict(zip(gallery.ids, scores.tolist(), strict=True))


def check_ranked(ranking, wanted):
    """Every score is the matcher's within what float16 does to it, and they fall."""
    spread = np.std(list(wanted.values()))
    assert sorted(ranking.ids) == sorted(wanted) and ranking.scores == sorted(ranking.scores, reverse=True)
    moved = max(abs(hit.score - wanted[hit.id]) for hit in ranking)
    assert 0 < moved < 0.02 * spread, "float16 moves a score by under a fiftieth of the scores' spread"


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("head", ["sgr", "scan", "tshsr", "saf"])
def test_the_exact_scan_ranks_as_the_matcher_does(head, photos, tmp_path):
    matcher = tiny_matcher(head)
    gallery = Gallery.build(matcher, photos, tmp_path / "g.xr")
    wanted = exact(matcher, gallery)
    ranking = gallery.search(QUERY, k=COUNT)
    check_ranked(ranking, wanted)
    assert all(hit.exact for hit in ranking) and gallery.info["coarse"] == {"by": "none"}
    kept = gallery._store.tokens(range(COUNT))
    images = matcher.head.restore_gallery(kept.local, kept.mask, kept.pooled)
    scores = matcher.score(matcher.encode_query(QUERY), images)[0]
    assert ranking.ids == [gallery.ids[i] for i in scores.argsort(descending=True, stable=True)]


def test_float16_rounds_unit_vectors_by_less_than_a_thousandth(alone, sgr):
    paths = [alone.path.parent / "photos" / id_ for id_ in alone.ids]
    kept, made = alone._store.tokens(range(COUNT)), sgr.encode_images(paths)
    error = (kept.local - made.local).abs().max()
    assert 0 < error < 2**-11 and torch.equal(kept.mask, made.mask)
    assert torch.equal(kept.pooled, made.pooled), "the global vectors stay float32"
    restored = sgr.head.restore_gallery(kept.local, kept.mask, kept.pooled)
    torch.testing.assert_close(restored.extra["gram"], made.extra["gram"], atol=1e-3, rtol=0)


def test_a_scan_in_small_pieces_is_the_scan_in_one(alone, monkeypatch):
    whole = alone.search(QUERY, k=COUNT)
    monkeypatch.setattr("xretrieve.gallery.search.READ", 3 * 9 * 16 * 4)
    pieces = alone.search(QUERY, k=COUNT)
    assert pieces.ids == whole.ids and pieces.scores == pytest.approx(whole.scores, abs=1e-6)


def test_reranking_everything_is_the_exact_scan(riding, alone):
    wanted = alone.search(QUERY, k=COUNT)
    for rerank in (COUNT, 1000, "all", None):
        found = riding.search(QUERY, k=COUNT, rerank=rerank)
        assert found.ids == wanted.ids and found.scores == pytest.approx(wanted.scores, abs=1e-6)


def test_the_coarse_order_is_that_of_the_coarse_matchers_own_gallery(riding, dual, photos, tmp_path):
    plain = Gallery.build(dual, photos, tmp_path / "dual.xr")
    found, wanted = riding.search(QUERY, k=COUNT, rerank=0), plain.search(QUERY, k=COUNT)
    assert found.ids == wanted.ids and found.scores == pytest.approx(wanted.scores)
    assert not any(hit.exact for hit in found) and all(hit.exact for hit in wanted)
    assert plain.search(QUERY, k=3, rerank=5).ids == wanted.ids[:3], "vectors that are the scores: nothing to rerank"


def test_candidates_are_reordered_and_the_rest_keeps_its_order(riding, sgr):
    coarse, wanted = riding.search(QUERY, k=COUNT, rerank=0), exact(sgr, riding)
    found = riding.search(QUERY, k=9, rerank=5)
    assert found.ids[:5] == sorted(coarse.ids[:5], key=wanted.get, reverse=True) and found.ids[5:] == coarse.ids[5:9]
    assert found.ids[:5] != coarse.ids[:5], "a test that reorders nothing shows nothing"
    assert [hit.exact for hit in found] == [True] * 5 + [False] * 4
    assert found.scores[5:] == coarse.scores[5:9] and found.to_json()["hits"][5]["exact"] is False
    assert riding.search(QUERY, k=2, rerank=5).ids == found.ids[:2], "candidates beyond k can enter"
    scores = [float(line.split()[4]) for line in found.to_trec().splitlines()]
    assert scores == sorted(scores, reverse=True) and scores[:5] == pytest.approx(found.scores[:5])


def test_several_queries_are_rescored_with_one_read(riding, sgr, monkeypatch):
    texts = sgr.encode_texts([QUERY, "a blue sledge"])
    candidates = np.array([[0, 3, 5, 7], [3, 1, 7, 13]])
    stages = Stages(riding._store, riding._index, riding._matchers)
    every = stages._read(np.arange(COUNT))
    wanted = score_pairs(sgr.head, texts, every, torch.from_numpy(candidates)).detach().numpy()
    assert np.allclose(stages.rescore(texts, candidates), wanted, atol=1e-6)
    monkeypatch.setattr("xretrieve.gallery.search.READ", 1)
    assert np.allclose(stages.rescore(texts, candidates), wanted, atol=1e-6)


def test_filters_hold_in_both_stages(sgr, dual, photos, tmp_path):
    noise_photos(photos / "sub", 4, seed=5)
    for coarse in (None, dual):
        gallery = Gallery.build(sgr, photos, tmp_path / "w.xr", coarse=coarse, overwrite=True)
        found = gallery.search(QUERY, k=20, where={"folder": "sub"}, rerank=None if coarse is None else 2)
        assert len(found) == 4 and {hit.metadata["folder"] for hit in found} == {"sub"}
        assert len(gallery.search(QUERY, where={"folder": "nowhere"})) == 0


def test_adding_and_removing_touch_only_those_pictures(riding, sgr, dual, photos):
    parts = {name: (riding.path / name).stat().st_mtime_ns for name in files_of(riding.path) if "parts" in name}
    noise_photos(photos / "more", 3, seed=9)
    assert riding.add(photos).added == ["more/0.png", "more/1.png", "more/2.png"]
    riding.remove(["3.png", "more/1.png"])
    assert all((riding.path / name).stat().st_mtime_ns == then for name, then in parts.items())
    again = Gallery.open(riding.path, sgr, dual)
    for one in (riding, again):
        wanted = exact(sgr, one)
        found = one.search(QUERY, k=99, rerank="all")
        check_ranked(found, wanted)
        assert len(found) == COUNT + 1
        assert set(one.search(QUERY, k=99, rerank=4).ids) == set(found.ids)
    before = again.search(QUERY, k=99)
    again.save()  # merged: the tokens move with their pictures
    assert len(list((again.path / "parts").iterdir())) == 1
    after = Gallery.open(again.path, sgr, dual).search(QUERY, k=99)
    assert after.ids == before.ids and after.scores == pytest.approx(before.scores, abs=1e-6)


def test_many_small_additions_are_merged_with_their_tokens(alone, sgr, photos):
    rng = np.random.default_rng(3)
    for i in range(MAX_PARTS + 1):
        PILImage.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(photos / f"new{i}.png")
        alone.add([photos / f"new{i}.png"])
    assert len(alone.info["parts"]) < 5
    check_ranked(alone.search(QUERY, k=99), exact(sgr, alone))


def test_a_copy_only_part_holds_no_tokens_and_is_read(alone, sgr, photos):
    (photos / "copy.png").write_bytes((photos / "0.png").read_bytes())
    assert alone.add(photos).duplicates == 1
    assert len(Gallery.open(alone.path, sgr).search(QUERY, k=99)) == COUNT


def test_a_killed_build_leaves_nothing_and_shows_nothing_while_it_runs(sgr, dual, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "IN_MEMORY", 10)  # so that tokens wait on the disk
    seen, append = [], token_files.TokenSpool.append

    def killed(self, tokens):
        append(self, tokens)
        seen.append(sorted(p.name for p in tmp_path.iterdir()))
        if len(seen) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(token_files.TokenSpool, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        Gallery.build(sgr, photos, tmp_path / "g.xr", coarse=dual, batch_size=1)
    assert seen == [["photos"]] * 3 and [p.name for p in tmp_path.iterdir()] == ["photos"], (
        "even a process that is shot leaves nothing: waiting tokens have no name"
    )


@pytest.mark.parametrize("step", ["_write_part", "_commit"])
def test_a_killed_addition_has_not_happened(riding, sgr, dual, photos, step, monkeypatch):
    def killed(*args, **options):
        raise KeyboardInterrupt

    noise_photos(photos / "more", 2, seed=9)
    with monkeypatch.context() as patch:
        patch.setattr(Store, step, killed)
        with pytest.raises(KeyboardInterrupt):
            riding.add(photos)
    again = Gallery.open(riding.path, sgr, dual)
    assert len(again) == COUNT and len(again.search(QUERY, k=99)) == COUNT
    assert len(again.add(photos).added) == 2 and len(again.search(QUERY, k=99)) == COUNT + 2


def test_one_backbone_under_both_heads_sees_each_picture_once(sgr, dual, photos, tmp_path, monkeypatch):
    seen, forward = [], type(sgr.image).forward
    monkeypatch.setattr(type(sgr.image), "forward", lambda self, batch: seen.append(len(batch)) or forward(self, batch))
    Gallery.build(sgr, photos, tmp_path / "shared.xr", coarse=dual, batch_size=8)
    assert seen == [8, COUNT - 8]
    seen.clear()
    other = tiny_matcher("dual", seed=7)  # other random weights: another backbone
    seen.clear()
    gallery = Gallery.build(sgr, photos, tmp_path / "two.xr", coarse=other, batch_size=8)
    assert sorted(seen) == sorted([8, COUNT - 8] * 2)
    vectors = other.encode_images([photos / id_ for id_ in gallery.ids]).pooled
    torch.testing.assert_close(torch.from_numpy(gallery._store.vectors(range(COUNT))), vectors)


def test_pictures_of_different_numbers_of_regions_keep_their_own(sgr, tmp_path):
    regions = xr.create_backbone("regions", dim=6)
    matcher = tiny_matcher("tshsr", image=regions)
    rng, galleries = np.random.default_rng(0), []
    sets = []
    for name, count in (("few", 3), ("many", 7)):
        np.save(tmp_path / f"{name}.npy", rng.standard_normal((5, count, 6)).astype(np.float32))
        rows = [FeatureRow(tmp_path / f"{name}.npy", i) for i in range(5)]
        ids = [f"{name}{i}" for i in range(5)]
        sets.append(RetrievalDataset("toy", "test", ids, rows, [], [], np.array([]), 5, "precomp"))
    gallery = Gallery.build(matcher, sets[0], tmp_path / "g.xr")
    gallery.add(sets[1])
    for one in (gallery, Gallery.open(gallery.path, matcher)):
        galleries.append(one.search(QUERY, k=10))
        tokens = one._store.tokens([7, 1])
        assert tokens.lengths.tolist() == [7, 3] and not tokens.local[1, 3:].any()
    scores = torch.cat([matcher.score(matcher.encode_query(QUERY), matcher.encode_images(s.images)) for s in sets], 1)
    assert galleries[0].scores == pytest.approx(scores[0].sort(descending=True).values.tolist(), abs=1e-2)
    size = (gallery.path / "parts" / gallery.info["parts"][0]["name"] / "local.npy").stat().st_size
    assert size < 5 * 3 * 16 * 2 + 256, "nothing is padded on disk"


def test_a_head_with_a_coarse_space_of_its_own_needs_no_other(photos, tmp_path):
    matcher = tiny_matcher("tshsr")
    matcher.head.config["coarse"] = True
    gallery = Gallery.build(matcher, photos, tmp_path / "own.xr")
    assert gallery.info["coarse"] == {"by": "head"} and gallery.coarse is None
    assert not (gallery.path / "parts" / gallery.info["parts"][0]["name"] / "pooled.npy").exists()
    texts, images = matcher.encode_texts([QUERY]), matcher.encode_images([photos / id_ for id_ in gallery.ids])
    wanted = dict(zip(gallery.ids, (texts.pooled @ images.pooled.T)[0].tolist(), strict=True))
    found = gallery.search(QUERY, k=COUNT, rerank=0)
    assert found.ids == sorted(wanted, key=wanted.get, reverse=True)
    top = gallery.search(QUERY, k=COUNT, rerank=3)
    assert set(top.ids[:3]) == set(found.ids[:3]) and top.ids[3:] == found.ids[3:]


def test_queries_that_the_head_cannot_score_are_answered_in_coarse_order(riding, alone, dual, photos):
    for query in (xr.MultiText(["a red dog", "snow"]), xr.Image(photos / "2.png"),
                  xr.ImageText(photos / "2.png", "blue")):  # fmt: skip
        found = riding.search(query, k=5)
        assert not any(hit.exact for hit in found) and "takes no query" in found.note and "coarse" in found.note
        wanted = dual.score(dual.encode_query(query), dual.encode_images([h.path for h in found]))[0]
        assert found.scores == pytest.approx(wanted.tolist(), abs=1e-5)
        assert riding.search(query, k=5, rerank=0).ids == found.ids
        for gallery, rerank in ((riding, 5), (riding, "all"), (alone, None)):
            with pytest.raises(XRetrieveError, match="takes no query"):
                gallery.search(query, rerank=rerank)
    parts = riding.search(xr.MultiText(["a red dog", "snow"]), k=1).explain(0)["parts"]
    assert [part["text"] for part in parts] == ["a red dog", "snow"]


@pytest.mark.parametrize("rerank", ["auot", -1, 2.5, True])
def test_a_wrong_rerank_says_what_to_give(riding, rerank):
    with pytest.raises(XRetrieveError, match=f"rerank is .*{rerank}.*give"):
        riding.search(QUERY, rerank=rerank)


def test_candidates_without_a_coarse_space_are_refused_with_all_ways_out(alone):
    for rerank in (0, 5):
        with pytest.raises(XRetrieveError, match=r"leave rerank out .*--coarse RUN.* coarse loss"):
            alone.search(QUERY, rerank=rerank)


def test_only_a_matcher_that_can_choose_candidates_is_taken(sgr, dual, photos, tmp_path):
    for matcher, coarse, message in (
        (sgr, tiny_matcher("saf"), "head 'saf' scores token by token; give a run with a dual encoder"),
        (dual, dual, "its vectors|are its scores"),
        (Ensemble({"one": sgr, "two": tiny_matcher("saf")}), None, "average of 2 matchers.*index one of its members"),
        (sgr, Ensemble({"one": dual, "two": dual}), "average of 2 matchers.*index one of its members"),
    ):
        with pytest.raises(XRetrieveError, match=message):
            Gallery.build(matcher, photos, tmp_path / "g.xr", coarse=coarse)
    with pytest.raises(XRetrieveError, match="index 'hnsw' would choose at random"):
        pytest.importorskip("faiss")
        Gallery.build(sgr, photos, tmp_path / "g.xr", index="hnsw")
    assert not (tmp_path / "g.xr").exists()


def test_the_index_says_how_pictures_were_prepared(riding):
    for key in ("matcher", "coarse"):
        image = riding.info[key]["image"]
        assert image["backbone"] == "timm:test_resnet" and image["preprocessing"]["input_size"][1:] == [96, 96]


def test_a_wrong_matcher_is_refused_on_either_side(riding, alone, sgr, dual):
    other = tiny_matcher("dual", seed=3, image=sgr.image)
    with pytest.raises(XRetrieveError, match=f"coarse matcher {dual.fingerprint()} .*not by {other.fingerprint()}"):
        Gallery.open(riding.path, sgr, other)
    with pytest.raises(XRetrieveError, match="was made by matcher .*cannot be compared"):
        Gallery.open(riding.path, dual)
    with pytest.raises(XRetrieveError, match="was built without a coarse matcher"):
        Gallery.open(alone.path, sgr, dual)


def test_both_matchers_are_found_again_by_their_runs(sgr, dual, photos, tmp_path):
    for name, matcher in (("sgr", sgr), ("dual", dual)):
        matcher.save(tmp_path / "runs" / name / "matcher")
    loaded = {name: xr.load(tmp_path / "runs" / name) for name in ("sgr", "dual")}
    gallery = Gallery.build(loaded["sgr"], photos, tmp_path / "g.xr", coarse=loaded["dual"])
    again = Gallery.open(gallery.path)
    assert again.search(QUERY, k=5, rerank=0).ids == gallery.search(QUERY, k=5, rerank=0).ids
    assert again.search(QUERY, k=5, rerank=3).scores == pytest.approx(gallery.search(QUERY, k=5, rerank=3).scores)
    (tmp_path / "runs" / "dual").rename(tmp_path / "runs" / "moved")
    with pytest.raises(XRetrieveError, match="takes its candidates from .*pass coarse= .*--coarse"):
        Gallery.open(gallery.path).search(QUERY, rerank=3)
    assert len(Gallery.open(gallery.path).search(QUERY, rerank="all")) == 10, "the scan needs no coarse matcher"
    assert len(Gallery.open(gallery.path, coarse=xr.load(tmp_path / "runs" / "moved")).search(QUERY, rerank=3)) == 10


def test_an_approximate_index_under_the_coarse_vectors(sgr, dual, photos, tmp_path):
    pytest.importorskip("faiss")
    gallery = Gallery.build(sgr, photos, tmp_path / "h.xr", coarse=dual, index="hnsw")
    assert gallery.info["index"]["recall"]["value"] == 1
    assert gallery.search(QUERY, k=5, rerank=8).ids[0] in gallery.search(QUERY, k=8, rerank=0).ids


def test_damaged_tokens_are_said(alone, sgr):
    part = alone.path / "parts" / alone.info["parts"][0]["name"]
    np.save(part / "lengths.npy", np.full(COUNT, 8, np.int32))
    with pytest.raises(XRetrieveError, match="lengths.npy is damaged: its bytes changed"):
        Gallery.open(alone.path, sgr)
    (part / "local.npy").unlink()
    with pytest.raises(XRetrieveError, match="local.npy is damaged: it is missing"):
        Gallery.open(alone.path, sgr)
    del alone.info["parts"][0]["sum"]  # as former versions wrote it
    write_json(alone.path / "gallery.json", alone.info)
    (part / "checksums.json").unlink()
    with pytest.raises(XRetrieveError, match="damaged or missing"):
        Gallery.open(alone.path, sgr)
    np.save(part / "local.npy", np.zeros((3, 3), np.float16))
    with pytest.raises(XRetrieveError, match="is damaged: .* build the gallery again"):
        Gallery.open(alone.path, sgr)


def test_values_beyond_float16_set_the_picture_aside(sgr, photos, tmp_path, monkeypatch):
    prepare, path = type(sgr).encode_images, photos / "4.png"

    def loud(self, items, **options):
        prepared = prepare(self, items, **options)
        local = prepared.local.clone()
        local[[row for row, item in enumerate(items) if item == path]] = 1e6
        return replace(prepared, local=local)

    monkeypatch.setattr(type(sgr), "encode_images", loud)
    gallery = Gallery.build(sgr, photos, tmp_path / "g.xr")
    assert len(gallery) == COUNT - 1 and "4.png" in json.dumps(gallery.failed) and "4.png" not in gallery


def test_explanations_name_words_and_places(alone, riding):
    for gallery in (alone, riding):
        told = gallery.search("a zorilla runs near water", k=3).explain(1)
        attention = told["attention"]
        assert attention["words"] == ["<start>", "a", "<zorilla>", "<runs>", "near", "water", "<end>"]
        assert attention["layout"]["grid"] == [3, 3] and attention["regions"] == 9 and set(attention["map"]) == {"t2i"}
        assert np.array(attention["streams"]["t2i"]["weights"]).sum(1) == pytest.approx(np.ones(7), abs=1e-4)
        assert told["parts"][0]["score"] == pytest.approx(told["score"], abs=1e-5)
    path = riding.search(QUERY, k=1)[0].path
    ranking = riding.search(QUERY, k=1)
    path.unlink()
    assert ranking.explain(0)["attention"]["layout"] is None, "a vanished picture has no places, but still its numbers"
    riding.remove(ranking.ids)
    with pytest.raises(XRetrieveError, match="no longer in"):
        ranking.explain(0)
