"""docs/serve.md says what the server does: its commands parse, its calls are answered, its table is the code's."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from pathlib import Path

import pytest

from tests.app.conftest import client_of
from tests.gallery_fakes import paint, tiny_matcher
from tests.test_readme import commands, parse
from xretrieve.app.settings import Settings
from xretrieve.gallery import Gallery

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
MARK = "<!-- settings -->\n"
END = "\n\nEach kind of work"


def table() -> str:
    """The settings as markdown, from the docstring of the dataclass."""
    told = inspect.getdoc(Settings).split("Args:\n", 1)[1]
    meanings: dict[str, str] = {}
    for line in told.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            meanings[name] = text
        else:
            meanings[name] += " " + line.strip()
    rows = []
    for field in dataclasses.fields(Settings):
        if field.name not in ("host", "port", "token"):  # options of their own
            default = f"`{field.default}`" if field.default != "" else "none"
            rows.append(f"| `{field.name}` | {default} | {meanings[field.name]} |")
    return "\n| key | default | meaning |\n|---|---|---|\n" + "\n".join(rows)


def test_the_table_of_limits_is_that_of_the_code():
    text = PAGE.read_text(encoding="utf-8")
    assert text.partition(MARK)[2].partition(END)[0] == table(), "run python tests/app/test_serve_docs.py"


@pytest.mark.parametrize("page", ["serve.md", "search.md"])
def test_commands_parse(page):
    text = (PAGE.parent / page).read_text(encoding="utf-8")
    told = commands("xretrieve", text)
    assert told
    for words in told:
        parse(words)


def test_every_call_is_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "photos" / "beach.jpg", (200, 180, 90))
    gallery = Gallery.build(tiny_matcher("dual"), tmp_path / "photos", tmp_path / "photos.xr")
    told = commands("curl", PAGE.read_text(encoding="utf-8"))
    assert len(told) >= 9
    with client_of(gallery) as client:
        for words in told:
            answer = curl(client, words)
            assert answer.status_code in (200, 201), f"curl {shlex.join(words)}: {answer.text}"


def curl(client, words):
    """The few options of curl that the page uses."""
    words, headers, data, form, files = list(words), {}, None, {}, {}
    while len(words) > 1:
        option, value = words.pop(0), words.pop(0)
        name, _, rest = value.partition("=")
        if option == "-H":
            key, _, text = value.partition(": ")
            headers[key] = text
        elif option == "-d":
            data = value
        elif option == "-F" and rest.startswith("@"):
            files[name] = Path(rest[1:]).read_bytes()
        elif option == "-F":
            form[name] = rest
        else:
            assert option == "-o", option
    path = words[0].removeprefix("http://127.0.0.1:8765")
    if files:
        return client.post(path, files=files, data=form)
    return client.post(path, content=data, headers=headers) if data is not None else client.get(path, headers=headers)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(MARK)
    PAGE.write_text(head + MARK + table() + END + rest.partition(END.strip())[2], encoding="utf-8")
