"""The campaign of damaged pictures, its short form: nothing crashes, and nothing but a reason comes out."""

from __future__ import annotations

import sys

import pytest

from benchmarks.reliability import pictures


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_damaged_pictures_of_every_format_are_read_or_refused_with_a_reason():
    told = pictures.run(first=0, cases=400)
    assert (told["crashes"], told["hangs"], told["escaped"], told["errors"]) == (0, 0, 0, []), told
    assert told["formats"] >= 23 and sum(told["outcomes"].values()) == 400
    assert told["outcomes"]["read"] > 20 and told["outcomes"]["broken picture"] > 20 and told["worst_memory_mb"] < 300
    assert "400 mutated files" in pictures.summary(told) and "0 crashes" in pictures.summary(told)


def test_a_case_is_made_from_its_number_alone():
    files = pictures.seeds()
    assert pictures.mutated(files, 77) == pictures.mutated(files, 77) != pictures.mutated(files, 77 + len(files))
    assert {pictures.outcome(data) for _, data in files} == {"read"}, "whole files of every kind are read"
    assert pictures.outcome(b"no picture") == "not a picture"
