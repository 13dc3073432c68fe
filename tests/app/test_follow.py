"""A server over an index that other programs change, replace and delete."""

import shutil
import threading

import pytest

from tests.app.conftest import client_of
from tests.gallery_fakes import noise_photos
from xretrieve.app.follow import Follower
from xretrieve.errors import XRetrieveError
from xretrieve.gallery import Gallery
from xretrieve.gallery.store import Store
from xretrieve.query import ImageText, Text

DOG = {"texts": ["a red dog"], "k": 20}


@pytest.fixture(scope="module")
def dual(served):
    return served.coarse


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_a_server_answers_whatever_other_programs_do(dual, tmp_path, index):
    if index != "flat":
        pytest.importorskip("faiss")
    dual.save(tmp_path / "run" / "matcher")
    built = Gallery.build(dual, noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr", index=index)
    with client_of(Gallery.open(tmp_path / "g.xr", dual)) as client:

        def found():
            answer = client.post("/api/search", json=DOG)
            assert answer.status_code == 200, answer.text
            return {hit["id"] for hit in answer.json()["hits"]}

        session = client.post("/api/sessions", json={}).json()["session"]
        built.add(noise_photos(tmp_path / "more", 2, seed=7))
        health = client.get("/api/health").json()
        assert (health["status"], health["pictures"], health["revision"]) == ("ok", 7, built.info["revision"])
        assert len(found()) == 7
        built.remove("0.png")
        built.save()
        assert len(found()) == 6 and client.get("/api/pictures?id=0.png").status_code == 404
        Gallery.build(dual, [tmp_path / "photos" / "3.png"], tmp_path / "g.xr", overwrite=True)
        assert found() == {"3.png"}
        client.post(f"/api/sessions/{session}/add", json={"text": "a red dog"})
        ranking = client.get(f"/api/sessions/{session}/ranking").json()
        assert [hit["id"] for hit in ranking["hits"]] == ["3.png"], "a session sees what a search sees"
        shutil.rmtree(tmp_path / "g.xr")
        assert found() == {"3.png"}
        health = client.get("/api/health").json()
        assert health["status"] == "stale" and "is not a gallery" in health["problem"] and health["pictures"] == 1
        assert str(tmp_path) not in health["problem"]


def test_an_answer_is_of_one_revision_and_of_before_until_the_new_one_is_read(dual, tmp_path, monkeypatch):
    built = Gallery.build(dual, noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr")
    follower = Follower(Gallery.open(tmp_path / "g.xr", dual), 0.01)
    first, opening, going = follower.newest, threading.Event(), threading.Event()
    read = Store.open

    def slowly(folder):
        opening.set()
        assert going.wait(10)
        return read(folder)

    follower.start()
    try:
        monkeypatch.setattr(Store, "open", slowly)
        built.add(noise_photos(tmp_path / "more", 2, seed=7))
        assert opening.wait(10), "it looks by itself"
        for _ in range(3):  # the first one waits for a moment, none for long
            assert follower.gallery(0.05) is first and len(first.search("a red dog", k=20)) == 5
        assert not first.current and first.problem == ""
        going.set()
        assert follower.look(10) and len(follower.gallery()) == 7
        assert follower.newest.info["revision"] > first.info["revision"] and len(first) == 5
        assert follower.newest.matcher is first.matcher, "the model is not loaded again"
    finally:
        going.set()
        follower.stop()


def test_a_search_whose_files_were_replaced_is_answered_from_the_new_state(dual, tmp_path, monkeypatch):
    built = Gallery.build(dual, noise_photos(tmp_path / "photos", 5), tmp_path / "g.xr")
    with client_of(Gallery.open(tmp_path / "g.xr", dual)) as client:
        asked, search = [], Gallery._search_many

        def gone(self, asks):
            asked.append(self.info["revision"])
            if len(asked) == 1:  # another program is done with a merge just now
                built.add(noise_photos(tmp_path / "more", 2, seed=7))
                return [XRetrieveError("parts/0000 is damaged or missing")] * len(asks)
            return search(self, asks)

        monkeypatch.setattr(Gallery, "_search_many", gone)
        answer = client.post("/api/search", json=DOG).json()
        assert len(answer["hits"]) == 7 and answer["revision"] == asked[1] > asked[0] and len(asked) == 2


def test_what_goes_wrong_while_the_disk_is_looked_at_does_not_end_the_looking(dual, tmp_path, monkeypatch):
    built = Gallery.build(dual, noise_photos(tmp_path / "photos", 3), tmp_path / "g.xr")
    follower = Follower(Gallery.open(tmp_path / "g.xr", dual), 0.01)
    monkeypatch.setattr(Store, "open", lambda folder: 1 / 0)
    follower.start()
    try:
        built.remove("0.png")
        assert not follower.look(10) and "ZeroDivisionError" in follower.problem
        monkeypatch.undo()
        assert follower.look(10) and len(follower.newest) == 2 and follower.problem == ""
    finally:
        follower.stop()


def test_texts_and_pictures_are_searched_by_two_threads_at_once(served, served_photos):
    queries = [[Text(f"a {word} dog in the snow") for word in ("red", "blue", "green", "yellow")],
               [ImageText(served_photos / f"{n}.png", "a blue sledge") for n in range(4)]]  # fmt: skip
    wanted = [[served.search(query, k=12) for query in some] for some in queries]
    reasons = served.explain(queries[0][0], "3.png")["parts"]
    wrong, both = [], threading.Barrier(2)

    def search(some, right):
        both.wait(10)
        for _ in range(15):
            for query, ranking in zip(some, right, strict=True):
                found = served.search(query, k=12)
                if found.ids != ranking.ids or found.scores != pytest.approx(ranking.scores, abs=1e-6):
                    wrong.append((query, found.scores, ranking.scores))
            if served.explain(queries[0][0], "3.png")["parts"] != reasons:
                wrong.append("explanation")

    threads = [threading.Thread(target=search, args=pair) for pair in zip(queries, wanted, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_unknown_id_is_not_compared_with_all_ids(served, monkeypatch):
    monkeypatch.setattr(
        "xretrieve.gallery.searchable.get_close_matches", lambda *_, **__: pytest.fail("all ids were compared")
    )
    with client_of(served) as client:
        for answer in (
            client.get("/api/pictures?id=no-such.png"),
            client.post("/api/search", json={"image": "no-such.png"}),
            client.post("/api/explain", json={"texts": ["a dog"], "id": "no-such.png"}),
        ):
            assert answer.status_code == 404 and answer.json() == {"error": "the index has no id 'no-such.png'"}
