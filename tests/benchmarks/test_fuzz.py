"""benchmarks/reliability/fuzz.py in short: wrong input of every kind ends in an answer or in one sentence."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("timm")

from benchmarks.reliability import fuzz, fuzz_cases  # noqa: E402
from benchmarks.reliability.mutate import spoil_bytes, spoil_value  # noqa: E402


def test_wrong_input_of_every_kind_is_answered_or_refused_in_one_sentence():
    found = fuzz.run(160, seed=1)
    assert found.faults == [], found.faults
    assert set(found.cases.values()) == {20} and len(found.cases) == 8
    assert all(0 < found.refused[kind] <= 20 for kind in found.cases), "each kind is really made wrong"
    assert "160 cases" in found.summary() and "tracebacks 0" in found.summary()


def test_faults_of_every_sort_are_counted(monkeypatch):
    def broken(rng, world):
        what = rng.choice(("traceback", "code", "long", "hang"))
        if what == "traceback":
            raise KeyError("x")
        if what == "code":
            world.mark.mkdir()
        if what == "hang":
            raise fuzz._TooLongError
        if what == "long":
            error = fuzz_cases.ALLOWED("short")
            error.args = ("x" * 5000,)
            raise error

    class Place:
        def __init__(self, folder):
            self.mark = folder / "owned"

    monkeypatch.setattr(fuzz_cases, "KINDS", {"broken": broken})
    monkeypatch.setattr(fuzz_cases, "World", Place)
    found = fuzz.run(40)
    assert len(found.faults) == 40 and found.count("code") and found.count("hang") and found.count("traceback")


def test_a_seed_makes_the_same_case_again():
    for seed in range(30):
        one, two = (spoil_bytes(random.Random(seed), b"some good content" * 9) for _ in range(2))
        assert one == two
        first, second = (repr(spoil_value(random.Random(seed), {"a": [1, {"b": "c"}]})) for _ in range(2))
        assert first == second
