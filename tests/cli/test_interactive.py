"""`xretrieve search INDEX --interactive`, driven through the standard input as a pipe and as a terminal."""

from __future__ import annotations

import io
import json

import pytest

import xretrieve as xr
from tests.set_galleries import COUNT, SENTENCES, Galleries
from xretrieve.cli.main import main
from xretrieve.gallery import Gallery

pytest.importorskip("timm")


@pytest.fixture(scope="module")
def galleries(tmp_path_factory):
    return Galleries(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def talk(galleries, monkeypatch, capsys):
    """Play lines into a session over a gallery: status, stdout, stderr."""

    def play(case, lines, *options):
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(line + "\n" for line in lines)))
        status = main([str(a) for a in ("search", galleries[case].path, "--interactive", *options)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return play


def turns(out):
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("case", ["hmrn-t2i", "drilldown", "dual"])
def test_each_line_ranks_with_all_sentences_so_far(talk, galleries, case):
    lines = [SENTENCES[0], "", f"  {SENTENCES[1]} ", "/undo", SENTENCES[2], "/show 7", "/reset", SENTENCES[3]]
    status, out, err = talk(case, lines, "--json", "-k", 3)
    a, b, c, d = SENTENCES[:4]
    said = [[a], [a, b], [a], [a, c], [a, c], [], [d]]
    assert status == 0 and err == ""
    gallery = Gallery.open(galleries[case].path)
    for texts, turn, k in zip(said, turns(out), (3, 3, 3, 3, 7, 7, 7), strict=True):
        assert turn["turn"] == len(texts)
        wanted = gallery.search(xr.MultiText(texts), k=k, rerank="all").ids if texts else []
        assert [hit["id"] for hit in turn["hits"]] == wanted
        assert not texts or (turn["ms"] > 0 and turn["query"]["texts"] == texts)


def test_the_table_says_score_time_and_what_needed_reasoning(talk, galleries):
    status, out, _ = talk("hmrn-t2i", [SENTENCES[1], "/quit", "never said"], SENTENCES[0], "-k", 2)
    hits = galleries["hmrn-t2i"].search(xr.MultiText(SENTENCES[:2]), k=2)
    assert status == 0 and f"2: {SENTENCES[0]} · {SENTENCES[1]}" in out and "never said" not in out
    assert all(f"{hit.score:.4f}" in out and hit.id in out for hit in hits)
    assert out.count(" ms, ") == out.count(" % of the pictures needed reasoning") == 2
    status, out, _ = talk("dual", [SENTENCES[1]], "-k", 2)
    assert " ms" in out and "reasoning" not in out


def test_a_line_that_is_wrong_is_said_and_the_next_one_taken(talk):
    lines = ["/undo", "/show", "/udno", "/show many", SENTENCES[0], "/explain 99", "/explain"]
    status, out, err = talk("hmrn-t2i", lines, "--json")
    assert status == 2, "a script learns that a line was refused"
    assert err.count("error: ") == err.count("\n") == 5
    for message in ("no sentence to take back", "nothing has been said", "did you mean '/undo'", "'many' is no number",
                    f"there are {COUNT} results"):  # fmt: skip
        assert message in err
    first, told = turns(out)
    assert first["turn"] == 1 and told["id"] == first["hits"][0]["id"] and "levels" in told


def test_parts_filters_and_combinations_reach_the_session(talk, galleries):
    _, out, _ = talk("sgr", SENTENCES[:2], "--json", "--combine", "rank_fusion", "--where", "folder=.", "--explain")
    last = turns(out)[-1]
    session = galleries["sgr"].session("rank_fusion")
    session.add(SENTENCES[0])
    session.add(SENTENCES[1])
    assert [hit["id"] for hit in last["hits"]] == session.ranking().ids
    assert [part["text"] for part in last["hits"][0]["parts"]] == list(SENTENCES[:2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "x.png"], "--image does not go with --interactive"),
        (["--rerank", "5"], "--rerank does not go with --interactive"),
        (["-k", "0"], "k is 0"),
        (["--combine", "paragraf"], "did you mean 'paragraph'"),
        (["--where", "folder=nowhere"], "matches where="),
    ],
)
def test_options_that_do_not_fit_are_refused_at_once(talk, options, message):
    status, out, err = talk("dual", [SENTENCES[0]], *options)
    assert status == 2 and message in err and err.count("\n") == 1 and out == ""


def test_combine_alone_and_heads_of_single_texts_are_refused(talk, galleries, capsys):
    assert main(["search", str(galleries["dual"].path), "a dog", "--combine", "paragraph"]) == 2
    assert "--combine belongs to --interactive" in capsys.readouterr().err
    status, _, err = talk("sgr", [SENTENCES[0]])
    assert status == 2 and "--combine" in err


def test_at_a_terminal_it_greets_prompts_and_survives_ctrl_c(galleries, monkeypatch, capsys):
    typed, prompts = iter([SENTENCES[0], KeyboardInterrupt, "/undo", "/undo", EOFError]), []

    def read(prompt):
        prompts.append(prompt)
        line = next(typed)
        if isinstance(line, str):
            return line
        raise line

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    assert main(["search", str(galleries["dual"].path), "--interactive"]) == 0
    out = capsys.readouterr()
    assert prompts == ["1> ", "2> ", "2> ", "1> ", "1> "] and "/explain [RANK]" in out.out
    assert "nothing said" in out.out and "no sentence to take back" in out.err
