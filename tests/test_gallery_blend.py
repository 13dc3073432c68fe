"""`xretrieve tune` and what searches make of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml

import xretrieve as xr
from tests.gallery_fakes import noise_photos, tiny_matcher
from xretrieve.cli.main import main
from xretrieve.data.base import RetrievalDataset
from xretrieve.errors import XRetrieveError
from xretrieve.evaluation.cascade import tune
from xretrieve.gallery import Gallery

pytest.importorskip("timm")
COUNT = 14
QUERY = "a red dog near yellow water"


@pytest.fixture(scope="module")
def matchers():
    sgr = tiny_matcher("sgr")
    return sgr, tiny_matcher("dual", seed=1, image=sgr.image)


@pytest.fixture(scope="module")
def built(matchers, tmp_path_factory):
    place = tmp_path_factory.mktemp("blend")
    return Gallery.build(matchers[0], noise_photos(place / "photos", COUNT), place / "g.xr", coarse=matchers[1])


@pytest.fixture
def gallery(built, matchers, tmp_path):
    shutil.copytree(built.path, tmp_path / "g.xr")
    return Gallery.open(tmp_path / "g.xr", *matchers)


@pytest.fixture(scope="module")
def captions(built):
    paths = [built.picture(id_) for id_ in built.ids]
    said = [f"a {colour} {thing}" for colour in ("red", "blue", "green") for thing in ("dog", "sledge", "bird", "snow")]
    return RetrievalDataset(
        name="noise", split="val", image_ids=built.ids, images=paths, captions=said,
        caption_ids=[str(i) for i in range(len(said))], owner=np.arange(len(said)), metadata=[{}] * COUNT,
        expected_images=COUNT, layout="test",
    )  # fmt: skip


def by_id(ranking):
    return dict(zip(ranking.ids, ranking.scores, strict=True))


def test_a_tuned_gallery_searches_by_what_was_found_and_says_it(gallery, matchers, captions):
    before = gallery.search(QUERY, k=COUNT)
    chosen = tune(gallery, captions)
    assert gallery.info["cascade"] == json.loads(json.dumps(chosen)) and chosen["dataset"] == "noise"
    again = Gallery.open(gallery.path, *matchers)
    ranking = again.search(QUERY, k=COUNT)
    assert ranking.ids == again.search(QUERY, k=COUNT, rerank="auto", blend="auto").ids
    assert again.search(QUERY, k=COUNT, rerank="all", blend=1).ids == before.ids
    scored = sum(hit.exact for hit in ranking)
    assert scored == (COUNT if chosen["rerank"] == "all" else chosen["rerank"])


def test_auto_says_what_it_chose_and_what_that_loses(gallery, captions):
    chosen = tune(gallery, captions)
    said = gallery.search(QUERY, k=3, rerank="auto").note
    assert said.startswith(f"auto: {chosen['rerank']} candidates") and f"the {COUNT} pictures of noise/val" in said
    assert gallery.search(QUERY, k=3).note == "", "who did not ask is not told"


def test_a_gallery_larger_than_the_split_takes_as_large_a_share_of_candidates(gallery):
    gallery.keep_cascade({"rerank": 2, "images": 4, "blend": 1.0, "coarse": [0.1, 0.05], "head": [2.0, 0.25]})
    assert sum(hit.exact for hit in gallery.search(QUERY, k=COUNT)) == COUNT // 2


def test_what_no_picture_fits_is_said(gallery):
    kept = {"rerank": 5, "blend": 0.5, "coarse": [0.1, 0.05], "head": [2.0, 0.25]}
    gallery.keep_cascade(kept)
    best = gallery.search(QUERY, k=1).scores[0]
    for weak, wanted in ((best + 0.1, True), (best - 0.1, False), (None, False)):
        gallery.keep_cascade(kept | {"weak": weak})
        found = gallery.search(QUERY, k=1)
        assert found.weak == wanted and ("nothing fits well" in found.note) == wanted
        assert found.to_json()["weak"] == wanted
    gallery.keep_cascade(kept | {"weak": best + 0.1})
    assert not gallery.search(QUERY, k=1, blend=0.2).weak, "another score, which was not measured"
    assert not gallery.search(QUERY, k=1, where={"folder": "."}).weak, "a part of the pictures need not have it"


def test_all_with_a_blend_scores_every_picture_by_both_whatever_the_index(built, matchers, tmp_path):
    kept = {"rerank": 2, "blend": 0.4, "coarse": [0.1, 0.05], "head": [2.0, 0.25]}
    pytest.importorskip("faiss")
    folder = noise_photos(tmp_path / "photos", COUNT)
    approximate = Gallery.build(matchers[0], folder, tmp_path / "h.xr", index="hnsw", coarse=matchers[1],
                                ef_search=1, m=4)  # fmt: skip
    exact = Gallery.build(matchers[0], folder, tmp_path / "f.xr", coarse=matchers[1])
    for one in (approximate, exact):
        one.keep_cascade(kept)
    wanted, found = (one.search(QUERY, k=COUNT, rerank="all") for one in (exact, approximate))
    assert found.ids == wanted.ids and len(found) == COUNT and found.share == 1.0
    assert found.scores == pytest.approx(wanted.scores, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_blended_score_is_the_sum_of_both_standardised(gallery, share):
    kept = {"rerank": "all", "blend": 0.5, "coarse": [0.1, 0.05], "head": [2.0, 0.25]}
    first, second = by_id(gallery.search(QUERY, k=COUNT, rerank=0)), by_id(gallery.search(QUERY, k=COUNT, rerank="all"))
    gallery.keep_cascade(kept)
    wanted = {i: (1 - share) * (first[i] - 0.1) / 0.05 + share * (second[i] - 2) / 0.25 for i in first}
    if share == 1:  # the head's own scores, as they are
        wanted = second
    found = gallery.search(QUERY, k=COUNT, rerank="all", blend=share)
    assert by_id(found) == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert found.ids == sorted(wanted, key=lambda i: -wanted[i]) and all(hit.exact for hit in found)
    few = gallery.search(QUERY, k=COUNT, rerank=5, blend=share)
    assert [hit.exact for hit in few] == [True] * 5 + [False] * (COUNT - 5)
    assert sorted(few.ids[:5]) == sorted(sorted(first, key=lambda i: -first[i])[:5])
    assert few.ids[5:] == sorted(first, key=lambda i: -first[i])[5:]


def test_what_was_found_survives_adding_removing_and_merging(gallery, matchers, captions, tmp_path):
    chosen = tune(gallery, captions)
    gallery.add(noise_photos(tmp_path / "more", 2, seed=5))
    gallery.remove(gallery.ids[0])
    gallery.save()
    assert Gallery.open(gallery.path, *matchers).info["cascade"] == json.loads(json.dumps(chosen))
    assert len(gallery.search(QUERY, k=COUNT)) == COUNT


def test_filters_and_several_searches_at_once_take_the_blend_too(gallery):
    from xretrieve.gallery.queries import Ask

    gallery.keep_cascade({"rerank": 4, "blend": 0.4, "coarse": [0.1, 0.05], "head": [2.0, 0.25]})
    alone = gallery.search(QUERY, k=6, where={"folder": "."})
    together = gallery.search_many([Ask("snow"), Ask(QUERY, k=6, where={"folder": "."})])[1]
    assert together.ids == alone.ids and together.scores == pytest.approx(alone.scores, rel=1e-3, abs=1e-4)
    assert gallery.search(xr.MultiText(["snow", "a dog"]), k=3).note, "a kind that the head cannot score: coarse order"


@pytest.mark.parametrize("wrong", [{"rerank": "auto"}, {"blend": "auto"}, {"blend": 0.5}])
def test_before_it_was_measured_automatic_says_what_to_run(gallery, wrong):
    with pytest.raises(XRetrieveError, match="xretrieve tune .*g.xr"):
        gallery.search(QUERY, **wrong)


@pytest.mark.parametrize("blend", [-0.1, 1.1, "much", True])
def test_a_wrong_blend_says_what_to_give(gallery, blend):
    with pytest.raises(XRetrieveError, match="give the share of the head's score"):
        gallery.search(QUERY, blend=blend)


def test_a_head_over_query_sets_is_measured_with_query_sets(matchers, captions, built, tmp_path):
    from dataclasses import replace

    from xretrieve.evaluation.cascade import asked

    hmrn = tiny_matcher("hmrn", image=matchers[0].image)
    owner = np.arange(12) // 3  # four pictures of three sentences
    sets = replace(captions, owner=owner)
    said, positive = asked(hmrn, sets, 99)
    assert [len(texts) for texts in said] == [1, 2, 3, 3] and positive.tolist() == [0, 1, 2, 3]
    gallery = Gallery.build(hmrn, built.path.parent / "photos", tmp_path / "h.xr", coarse=matchers[1])
    chosen = tune(gallery, sets)
    assert chosen["kind"] == "query sets" and chosen["queries"] == 4
    ranking = gallery.search(xr.MultiText(said[2]), k=COUNT)
    assert sum(hit.exact for hit in ranking) == (COUNT if chosen["rerank"] == "all" else chosen["rerank"])


def test_galleries_without_two_stages_are_not_tuned(matchers, built, captions, tmp_path):
    sgr, dual = matchers
    photos = built.path.parent / "photos"
    for matcher, message in ((dual, "no second stage to tune"), (sgr, "takes no candidates"),
                             (tiny_matcher("hmrn"), "takes no candidates")):  # fmt: skip
        gallery = Gallery.build(matcher, photos, tmp_path / "other.xr", overwrite=True)
        with pytest.raises(XRetrieveError, match=message):
            tune(gallery, captions)
        assert "cascade" not in gallery.info


def test_the_command_takes_the_runs_own_validation_split(matchers, built, tmp_path, capsys):
    for name, matcher in zip(("sgr", "dual"), matchers, strict=True):
        matcher.save(tmp_path / name / "matcher")
    recipe = {"dataset": {"name": "scenes", "options": {"train": 2, "val": 6, "test": 2, "size": 48}}}
    (tmp_path / "sgr" / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    index = str(tmp_path / "g.xr")
    assert main(["index", str(built.path.parent / "photos"), "--model", str(tmp_path / "sgr"), "--coarse",
                 str(tmp_path / "dual"), "--out", index]) == 0  # fmt: skip
    capsys.readouterr()
    assert main(["tune", index, "--queries", "8"]) == 0
    said = capsys.readouterr().out
    assert "8 captions of scenes/val in 6 pictures" in said and "searches re-rank" in said
    assert main(["search", index, QUERY, "--rerank", "auto", "--blend", "0.25", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 10
    assert main(["tune", index, "--model", "nowhere"]) == 2
    assert "no run folder 'nowhere'" in capsys.readouterr().err
    (tmp_path / "sgr" / "recipe.yaml").unlink()
    assert main(["tune", index]) == 2
    assert "write --dataset NAME" in capsys.readouterr().err
