"""Texts of files: their encoding, their lines, and JSON, whole or one value a line.

`str.splitlines` is not for files: it also cuts at U+2028, U+0085 and form feeds, which names and captions may hold.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError

_MARKS = ((codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_CUTS = {ord(c): f"\\u{ord(c):04x}" for c in "\u0085\u2028\u2029"}  # line ends for some other readers of our lines


class BrokenJsonError(XRetrieveError):
    """A text that is no JSON; ``reason`` and the line ``number`` are for callers that say more."""

    def __init__(self, message: str, reason: str, number: int) -> None:
        super().__init__(message)
        self.reason, self.number = reason, number


def encoding_of(start: bytes) -> str:
    """The encoding that the first bytes of a file show: UTF-8, UTF-16 or UTF-32, with or without a mark."""
    for mark, name in _MARKS:
        if start.startswith(mark):
            return name
    if len(start) > 1 and bool(start[0]) != bool(start[1]):  # UTF-16 that starts with an ASCII character
        return "utf-16-be" if not start[0] else "utf-16-le"
    return "utf-8"


def decode(content: bytes, where: str | os.PathLike[str]) -> str:
    """The text in the bytes of a file, line ends as they are; ``where`` names it in the error."""
    encoding = encoding_of(content[:4])
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding.startswith("utf-8"):
            at = content[: error.start].count(b"\n") + 1
            said = f"line {at} is not UTF-8 text (byte 0x{content[error.start]:02x})"
        else:
            said = f"not {encoding.upper()} text at byte {error.start} (a download cut short?)"
        raise XRetrieveError(f"{os.fspath(where)}: {said}; convert the file to UTF-8") from error
    if "\0" in text:
        at = text.count("\n", 0, text.index("\0")) + 1
        raise XRetrieveError(f"{os.fspath(where)}: line {at} holds zero bytes, so it is no text; get the file again")
    return text


def read_text(path: str | os.PathLike[str]) -> str:
    """The whole text of a file; one that is not there, cannot be read or is no text is an error that names it."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise XRetrieveError(f"no file {os.fspath(path)}") from error
    except OSError as error:
        raise XRetrieveError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    return decode(content, path)


def encode(text: str) -> bytes:
    """UTF-8. What is no text (half a pair, a byte of a file name) is written as ``\\udce9``, which JSON reads back."""
    return text.encode("utf-8", "backslashreplace")


def split_lines(text: str) -> list[str]:
    """Lines as files have them: cut at LF, CR LF or CR and nowhere else; no empty one after the last line end.

    >>> split_lines("a\\u2028b\\r\\nc\\n")
    ['a\\u2028b', 'c']
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def text_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a file, one after the other; blank lines too. Errors as `read_text`."""
    try:
        with open(path, "rb") as handle:
            encoding = encoding_of(handle.read(4))
        with open(path, encoding=encoding) as lines:
            for number, line in enumerate(lines, start=1):
                if "\0" in line:
                    break
                yield number, line.rstrip("\n")
            else:
                return
    except FileNotFoundError as error:
        raise XRetrieveError(f"no file {os.fspath(path)}") from error
    except OSError as error:
        raise XRetrieveError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError:
        pass
    read_text(path)  # says where it is broken


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text; ``where`` begins the error: a file, or a file and a line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = "" if ", line " in where else f", line {error.lineno} column {error.colno}"
        raise BrokenJsonError(f"{where}: not valid JSON{place}: {error.msg}", error.msg, error.lineno) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
        reason = "nested too deeply" if isinstance(error, RecursionError) else "a number with too many digits"
        raise BrokenJsonError(f"{where}: not usable JSON: {reason}", reason, 0) from error


def json_lines(path: str | os.PathLike[str], skip: Sequence[str] = ()) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of each line of a JSON Lines file that is not blank; a broken line is an error.

    Lines that hold one of the texts ``skip`` are passed over, which is much quicker than reading them.
    """
    for number, line in text_lines(path):
        if line.strip() and not any(text in line for text in skip):
            try:
                value = parse_json(line, f"{os.fspath(path)}, line {number}")
            except BrokenJsonError as error:
                error.number = number
                raise
            yield number, value


def to_json_lines(values: Iterable[Any]) -> str:
    """One JSON value a line, safe for readers that cut at every Unicode line end.

    >>> to_json_lines([{"name": "a\\u2028b"}])
    '{"name": "a\\\\u2028b"}\\n'
    """
    return "".join(json.dumps(value, ensure_ascii=False).translate(_CUTS) + "\n" for value in values)
