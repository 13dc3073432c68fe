"""Docstrings as they are written here become the Markdown that the site shows: roles, and examples."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([\w.\s]+)`")
EXAMPLE = re.compile(r"^( *)>>> .*(?:\n(?!\s*$).*)*", re.M)


class Docstrings(Extension):
    """``:func:`name` `` is shown as a name, and ``>>>`` lines with what they print as code."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda m: "`" + "".join(m[1].split()) + "`", obj.docstring.value).replace("``", "`")
            obj.docstring.value = EXAMPLE.sub(lambda m: f"{m[1]}```pycon\n{m[0]}\n{m[1]}```", text)
