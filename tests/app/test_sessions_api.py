"""Sessions over HTTP rank as sessions do, and do not live for ever."""

from __future__ import annotations

import pytest

from tests.app.conftest import client_of
from xretrieve.app.errors import ApiError
from xretrieve.app.sessions import Sessions

SAID = ["a red dog", "a blue sledge"]


def test_a_session_grows_is_undone_and_closed(client, served):
    opened = client.post("/api/sessions", json={"combine": "mean_similarity"})
    assert opened.status_code == 201 and opened.json()["texts"] == [] and opened.json()["seconds_left"] == 1800
    place, local = f"/api/sessions/{opened.json()['session']}", served.session("mean_similarity")
    for text in SAID:
        client.post(f"{place}/add", json={"text": text})
        local.add(text)
        found = client.get(f"{place}/ranking", params={"k": 5}).json()
        assert [hit["id"] for hit in found["hits"]] == local.ranking(5).ids
    assert found["texts"] == SAID and client.get(place).json()["texts"] == SAID
    assert client.post(f"{place}/undo").json()["texts"] == SAID[:1]
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404


def test_what_is_wrong_in_a_session_is_said(client):
    place = "/api/sessions/" + client.post("/api/sessions", json={"combine": "rank_fusion"}).json()["session"]
    for answer, status, message in (
        (client.get(f"{place}/ranking"), 400, "nothing has been said yet"),
        (client.post(f"{place}/undo"), 400, "no sentence to take back"),
        (client.post(f"{place}/add", json={"text": ""}), 422, "text: "),
        (client.post(f"{place}/add", json={}), 422, "text: field required"),
        (client.get("/api/sessions/nobody"), 404, "no such session"),
        (client.post("/api/sessions", json={"combine": "sum"}), 422, "combine"),
        (client.post("/api/sessions", json={}), 400, "head 'sgr' scores single texts"),
    ):
        assert answer.status_code == status and message in answer.json()["error"]


def test_a_session_takes_so_many_sentences_and_the_server_so_many_sessions(served):
    with client_of(served, sessions=2, max_texts=1) as client:
        opened = [client.post("/api/sessions", json={"combine": "rank_fusion"}) for _ in range(3)]
        assert [answer.status_code for answer in opened] == [201, 201, 503]
        assert "close one" in opened[2].json()["error"] and int(opened[2].headers["retry-after"]) > 1000
        place = f"/api/sessions/{opened[0].json()['session']}"
        assert client.post(f"{place}/add", json={"text": "a dog"}).status_code == 200
        assert "takes 1 sentences" in client.post(f"{place}/add", json={"text": "a cat"}).json()["error"]
        client.delete(place)
        assert client.post("/api/sessions", json={"combine": "rank_fusion"}).status_code == 201


class Words:
    """A gallery whose sessions keep what is said; counts them and their sentences."""

    def __init__(self):
        self.opened = self.said = 0

    def session(self, combine, where):
        self.opened += 1
        held, outer = [], self

        class Session:
            texts = property(lambda self: tuple(held))

            def add(self, text):
                outer.said += 1
                held.append(text)

        return Session()


def test_a_session_that_nobody_uses_is_dropped():
    now, words = [0.0], Words()
    sessions = Sessions(2, 1, clock=lambda: now[0])
    used, _ = sessions.open(words)
    left, _ = sessions.open(words)
    now[0] = 59
    sessions.get(used, words)
    now[0] = 61
    sessions.get(used, words)
    with pytest.raises(ApiError, match="not used for long"):
        sessions.get(left, words)
    assert len(sessions) == 1


def test_of_many_sessions_the_last_ones_are_kept_at_work_and_none_is_forgotten():
    words, sessions = Words(), Sessions(1000, 30, live=3)
    names = [sessions.open(words)[0] for _ in range(50)]
    for number, name in enumerate(names):
        session = sessions.get(name, words)
        session.add(f"text {number}")
        sessions.note(name, session)
    assert len(sessions) == 50 and words.said == 50
    assert [sessions.get(name, words).texts for name in names] == [(f"text {number}",) for number in range(50)]
    assert words.said > 50 and len(sessions._kept) == 3
    before = words.said
    assert sessions.get(names[-1], words).texts == ("text 49",) and words.said == before, "it is still at work"


def test_a_session_survives_the_process_and_sees_what_another_one_noted(tmp_path):
    words, place = Words(), tmp_path / "sessions.db"
    one, other = Sessions(9, 30, place=place), Sessions(9, 30, place=place)
    name, session = one.open(words, "mean_similarity", {"folder": "."})
    session.add("a red dog")
    one.note(name, session)
    assert other.get(name, words).texts == ("a red dog",) and len(other) == 1
    session = other.get(name, words)
    session.add("snow")
    other.note(name, session)
    assert one.get(name, words).texts == ("a red dog", "snow"), "it was at work here with less"
    other.close(name)
    with pytest.raises(ApiError, match="no such session"):
        one.get(name, words)


def test_a_changed_gallery_is_what_a_session_searches():
    before, after, sessions = Words(), Words(), Sessions(9, 30)
    name, session = sessions.open(before)
    session.add("a red dog")
    sessions.note(name, session)
    assert sessions.get(name, after).texts == ("a red dog",) and (after.opened, after.said) == (1, 1)
