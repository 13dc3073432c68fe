"""Words of a caption as the Penn Treebank splits them: punctuation and clitics stand alone.

The vocabularies of the published models were made with nltk's ``NLTKWordTokenizer``. These are its tokens of a
lower-cased line; nltk itself is not needed (importing it costs two seconds, for scipy comes with it).
"""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[^\w\s-]|--|[‒-―]")  # what is found here asks for the rules below
# Joined words that are read as two. "wanna" only before a space: at the end of a line there is one, see words_of().
_JOINED = re.compile(r"\b(?:(can)(not)|(d)('ye)|(gim|lem)(me)|(gon)(na)|(got)(ta)|(more)('n))\b|\b(wan)(na)(?=\s)")
_TIS = re.compile(r" 't(is|was)\b")  # after a word that was parted

_BEFORE = (  # quotes that open, in the order in which they are looked for
    (re.compile(r"[«“‘„]|`+"), r" \g<0> "),
    (re.compile(r'^"'), "``"),
    (re.compile("``"), " `` "),
    (re.compile(r"""([ (\[{<])(?:"|'')"""), r"\1 `` "),
    (re.compile(r"(?<!\w)'(?=\w)(?!(?:re|ve|ll|[mtsdn])\b)"), "' "),  # not a clitic: a quote
    (re.compile(r"""([^.])\.([])}>"'»”’ ]*+)\s*$"""), r"\1 . \2 "),  # a full stop ends the line, others stay in a word
    (re.compile(r"([:,])(\D)"), r" \1 \2"),  # 10:30 and 1,000 stay whole
    (re.compile(r"[:,]$"), r" \g<0> "),
    (re.compile(r"\.{2,}|[;@#$%&‒-―?!]"), r" \g<0> "),
    (re.compile(r"([^'])' "), r"\1 ' "),
    (re.compile(r"[][(){}<>*]"), r" \g<0> "),
    (re.compile("--"), " -- "),
)
_AFTER = (  # the line has a space at both ends now
    (re.compile("[»”’]"), r" \g<0> "),
    (re.compile("''|\""), " '' "),
    (re.compile(r"\s+"), " "),
    (re.compile(r"([^' ])('[smd]?) "), r"\1 \2 "),
    (re.compile(r"([^' ])('ll|'re|'ve|n't) "), r"\1 \2 "),
)


def words_of(text: str) -> list[str]:
    """Tokens of one lower-cased line.

    >>> words_of("the man's dog can't swim, it cannot (yet).")
    ['the', 'man', "'s", 'dog', 'ca', "n't", 'swim', ',', 'it', 'can', 'not', '(', 'yet', ')', '.']
    """
    if _PLAIN.search(text):
        for rule, instead in _BEFORE:
            text = rule.sub(instead, text)
        text = f" {text} "
        for rule, instead in _AFTER:
            text = rule.sub(instead, text)
    else:
        text += " "
    return _TIS.sub(r" 't \1 ", _JOINED.sub(_parted, text)).split()


def _parted(found: re.Match[str]) -> str:
    first, second = (part for part in found.groups() if part)
    return f" {first} {second} "
