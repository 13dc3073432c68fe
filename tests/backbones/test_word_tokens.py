"""Our word tokens against nltk's, which the published vocabularies were made with."""

import json
import random
import zipfile

import pytest

from xretrieve.backbones.word_tokens import words_of

AWKWARD = [
    "", " ", "a dog.", "a dog .", "a dog. ", 'he said "stop".', '"stop" (he said)', "('tis)", "'tis the dogs' ball",
    "it's 10:30, 1,000 dogs; a u.s. flag...", "a cat,, a dog,", "e.g. this.", "the '90s n't 'll", "rock 'n' roll",
    "cannot gimme gonna gotta lemme more'n wanna d'ye", "i wanna", "wanna-be", "a--b -- c - d-e", "``a'' ```b```",
    "“a” ‘b’ «c» „d“ — e–f", "50% of $3.88 #1 a&b *c* <d> [e] {f} @g", "what?! no!!", "a.) b.] c.'", "a\tb\n c.\n",
    "c'd've",
]  # fmt: skip
PIECES = [*"ab1 .,:;'\"`()-<?!*\t’“»é—", "n't", "'s", "cannot", "wanna", "''", "..", "'ll", "d'ye", " a ", "'tis"]


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("nltk.tokenize").NLTKWordTokenizer().tokenize


def test_awkward_lines_are_split_as_nltk_splits_them(theirs):
    chance = random.Random(0)
    mixed = ["".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(3000)]
    for line in [*AWKWARD, *mixed]:
        assert words_of(line) == theirs(line), repr(line)


@pytest.mark.slow
def test_every_caption_of_the_real_data_has_nltk_s_tokens(theirs, data_root):
    seen: set[str] = set()

    def read(value):
        if isinstance(value, str):
            seen.add(value.lower())
        elif isinstance(value, (dict, list)):
            for one in value.values() if isinstance(value, dict) else value:
                read(one)

    for path in sorted(data_root.rglob("*.json*")):
        if "vocab" not in path.parts:
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            read([json.loads(line) for line in lines])
    for path in data_root.rglob("*.txt"):
        read(path.read_text(errors="replace").splitlines())
    with zipfile.ZipFile(data_root / "caption_datasets.zip") as file:
        for name in file.namelist():
            read(json.loads(file.read(name)) if name.endswith(".json") else None)
    assert len(seen) > 500_000
    different = [line for line in seen if words_of(line) != theirs(line)]
    assert not different, f"{len(different)} lines, the first: {different[0]!r}"
