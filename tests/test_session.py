"""A session ranks after every sentence as a search with all of them does; taking back, bounds, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import xretrieve as xr
from tests.gallery_fakes import FakeMatcher, noise_photos
from tests.set_galleries import COUNT, HEADS, SENTENCES, Galleries
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.heads.fusion import combine_rounds, paragraphs
from xretrieve.session import LIMIT, Session

pytest.importorskip("timm")
SCRIPT = (0, 1, "undo", 2, 3, "undo", "undo", 1, 2, 4)  # sentences, and those taken back


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    return Galleries(tmp_path_factory.mktemp("sets"))


def play(session):
    """Yields the sentences that stand after every step of the script."""
    said = []
    for step in SCRIPT:
        if step == "undo":
            assert session.undo() == said.pop()
        else:
            session.add(SENTENCES[step])
            said.append(SENTENCES[step])
        assert session.texts == tuple(said) and len(session) == len(said)
        yield said


@pytest.mark.parametrize("case", list(HEADS))
def test_every_turn_is_a_search_with_all_sentences_so_far(galleries, case):
    gallery = galleries[case]
    session = gallery.session()
    for said in play(session):
        whole = gallery.search(xr.MultiText(said), k=COUNT, rerank="all")
        found = session.ranking(k=COUNT)
        assert found.ids == whole.ids and found.scores == pytest.approx(whole.scores, abs=1e-5)
        few, full = session.ranking(k=3), session.ranking(k=3, bounded=False)
        assert few.ids == full.ids == whole.ids[:3]
        assert few.scores == pytest.approx(full.scores, abs=1e-6) and session.share == full.share == whole.share
        assert few.query == xr.MultiText(said) == session.query


@pytest.mark.parametrize("case", ["hmrn-t2i", "drilldown", "dual", "sgr"])
@pytest.mark.parametrize("combine", ["mean_similarity", "rank_fusion", "paragraph"])
def test_simple_combinations_are_those_of_the_evaluation(galleries, case, combine):
    gallery = galleries[case]
    session = gallery.session(combine=combine)
    for said in play(session):
        texts = paragraphs(said) if combine == "paragraph" else said
        alone = [gallery.search(text, k=COUNT, rerank="all") for text in texts]
        rows = torch.tensor([[one.scores[one.ids.index(id_)] for id_ in gallery.ids] for one in alone])
        wanted = combine_rounds(rows, [len(said)], combine)[-1, :, 0]
        found = session.ranking(k=COUNT)
        got = torch.tensor([found.scores[found.ids.index(id_)] for id_ in gallery.ids])
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
        assert found.scores == sorted(found.scores, reverse=True)
    told = found.explain(0)
    assert [part["text"] for part in told["parts"]] == said and "attention" not in told
    if combine == "mean_similarity":
        assert np.mean([part["score"] for part in told["parts"]]) == pytest.approx(found[0].score, abs=1e-5)


def test_few_pictures_are_reasoned_about_at_first_and_the_answer_says_how_many(galleries):
    session, shares = galleries["hmrn-i2t"].session(), []
    for text in SENTENCES:
        session.add(text)
        ranking = session.ranking(k=2)
        assert ranking.share == session.share
        shares.append(ranking.share)
    assert 16 / COUNT <= shares[0] < 1 and shares[0] <= shares[-1]


def test_a_ranking_explains_the_set_as_a_search_does(galleries):
    gallery = galleries["hmrn-t2i"]
    session = gallery.session()
    for text in SENTENCES[:3]:
        session.add(text)
    own, searched = session.ranking(k=2).explain(1), gallery.search(session.query, k=2).explain(1)
    # its sentences are encoded one by one, which rounds otherwise on some processors
    np.testing.assert_array_max_ulp(np.float32(own.pop("score")), np.float32(searched.pop("score")), maxulp=4)
    assert own == searched


def test_only_pictures_that_match_are_ranked(tmp_path, galleries):
    photos = noise_photos(tmp_path / "photos", 20)
    noise_photos(photos / "sub", 6, seed=5)
    for case in ("hmrn-t2i", "dual"):
        gallery = Gallery.build(galleries[case].matcher, photos, tmp_path / f"{case}.xr")
        gallery.remove(["3.png", "sub/2.png"])  # rows that are gone are not found
        session = gallery.session(where={"folder": "sub"})
        session.add(SENTENCES[0])
        session.add(SENTENCES[1])
        found = session.ranking()
        wanted = gallery.search(session.query, where={"folder": "sub"}, rerank="all")
        assert found.ids == wanted.ids and len(found) == 5 and found.note == wanted.note != ""
        with pytest.raises(XRetrieveError, match="nothing in .* matches where"):
            gallery.session(where={"folder": "nowhere"})


def test_a_changed_gallery_wants_a_new_session(tmp_path, galleries):
    gallery = Gallery.build(galleries["dual"].matcher, noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr")
    session = gallery.session()
    session.add("a dog")
    gallery.remove("1.png")
    for call in (session.ranking, lambda: session.add("snow")):
        with pytest.raises(XRetrieveError, match="was changed; start a new session"):
            call()
    gallery.remove(gallery.ids)
    with pytest.raises(XRetrieveError, match="is empty; add pictures"):
        gallery.session()


def test_wrong_turns_are_refused_and_change_nothing(galleries):
    session = galleries["drilldown"].session()
    for call, message in (
        (session.undo, "no sentence to take back"),
        (session.ranking, "nothing has been said yet"),
        (lambda: session.add("  "), "is empty: write at least one word"),
        (lambda: session.add(["a", "b"]), "expected a string, got list"),
    ):
        with pytest.raises(XRetrieveError, match=message):
            call()
    session.add("a dog")
    with pytest.raises(XRetrieveError, match="k is 0"):
        session.ranking(k=0)
    before = session.ranking().ids
    with pytest.raises(XRetrieveError):
        session.add("")
    assert session.texts == ("a dog",) and session.ranking().ids == before
    session.reset()
    assert not session.texts
    for _ in range(LIMIT):
        session.add("a dog")
    with pytest.raises(XRetrieveError, match=f"takes {LIMIT} sentences; undo"):
        session.add("one more")
    assert len(session) == LIMIT


def test_what_cannot_hold_a_session_says_what_to_do(galleries, tmp_path):
    with pytest.raises(XRetrieveError, match="'sgr' scores single texts.*mean_similarity"):
        galleries["sgr"].session()
    with pytest.raises(XRetrieveError, match="did you mean 'paragraph'"):
        galleries["dual"].session(combine="paragraf")
    seen = Gallery.build(FakeMatcher(), noise_photos(tmp_path / "photos", 3), tmp_path / "fake.xr")
    with pytest.raises(XRetrieveError, match="takes no texts"):
        seen.session()


def test_the_documented_session_runs(galleries):
    page = (Path(__file__).parent.parent / "docs/search.md").read_text(encoding="utf-8")
    block = re.search(r"## One sentence after another.*?```python\n(.*?)```", page, re.S).group(1)
    known = {"gallery": galleries["hmrn-t2i"]}
    exec(block, known)
    assert known["session"].texts == ("a man in a red coat",) and len(known["ranking"]) == 5
    assert f"at\nmost {LIMIT} sentences" in page


def test_the_front_door_names_it():
    assert xr.multi_query.Session is Session
    with pytest.raises(AttributeError, match="no attribute 'Sessions'"):
        xr.multi_query.Sessions  # noqa: B018


def test_a_sentence_is_looked_for_once(galleries, monkeypatch):
    gallery = galleries["hmrn-t2i"]
    encoded, tokens = [], []
    real, read = type(gallery.matcher).encode_texts, type(gallery._store).tokens
    monkeypatch.setattr(
        type(gallery.matcher),
        "encode_texts",
        lambda self, texts, *a, **k: encoded.append(list(texts)) or real(self, texts, *a, **k),
    )
    monkeypatch.setattr(
        type(gallery._store),
        "tokens",
        lambda self, rows, local=True: (local and tokens.append(len(rows))) or read(self, rows, local),
    )
    session = gallery.session()
    for text in SENTENCES[:3]:
        session.add(text)
        assert encoded.pop() == [text] and not encoded
        assert sum(tokens) == COUNT, "a turn reads every picture once, whatever was said before"
        tokens.clear()
    session.undo()
    assert not encoded and not tokens


def test_a_gallery_larger_than_one_piece(galleries, monkeypatch):
    wanted = {}
    for size in (None, 3 * 9 * 16 * 4):
        for case in ("hmrn-t2i", "hmrn-i2t", "drilldown", "dual"):
            if size:
                monkeypatch.setattr("xretrieve.gallery.stored_images.PASS", size)
                monkeypatch.setattr("xretrieve.gallery.stored_images.PICK", size)
            session = galleries[case].session()
            for text in SENTENCES[:3]:
                session.add(text)
            ids = session.ranking(k=COUNT).ids
            assert wanted.setdefault(case, ids) == ids


def test_the_ranking_is_made_by_a_matcher_loaded_from_its_run(galleries):
    gallery = galleries["hmrn-t2i"]
    again = Gallery.open(gallery.path)
    sessions = again.session(), gallery.session()
    for session in sessions:
        session.add(SENTENCES[0])
    assert sessions[0].ranking().ids == sessions[1].ranking().ids
