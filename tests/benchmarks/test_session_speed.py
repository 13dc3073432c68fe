"""The benchmark of a session: it plays real sessions over a made-up gallery and says what it measured."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import session

TINY = ["--images", "90", "--sessions", "2", "--rounds", "3", "--regions", "4", "--width", "16", "--steps", "2",
        "--batch", "4", "--k", "3", "--full", "1,3"]  # fmt: skip


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_every_turn_is_timed_and_the_bound_changes_nothing(direction, capsys, tmp_path):
    rows = session.main([*TINY, "--direction", direction, "--folder", str(tmp_path)])
    assert [len(one) for one in rows] == [3, 3] and list(tmp_path.iterdir()) == []
    assert [("full" in row) for row in rows[0]] == [True, False, True] and "full" not in rows[1][0]
    assert all(row["turn"] > 0 and 16 / 90 <= row["share"] <= 1 for one in rows for row in one)
    assert [round(row["width"], 3) for row in rows[0]] == [0.051, 0.15, 0.3], "w of a horizon of three rounds"
    out = capsys.readouterr().out
    assert out.count("\n   ") == 3 and "without bound" in out and "90 images" in out


def test_a_sentence_is_nearest_to_its_own_image():
    world = session.World(6, 64, 0.4)
    regions, shown = world.images(50)
    said = world.sentences(shown, 3)  # (50,3,64)
    found = torch.einsum("ntd,mrd->ntmr", said, regions).amax(3).mean(1)  # (50,50)
    assert (found.argmax(1) == torch.arange(50)).float().mean() > 0.8
    assert regions.norm(dim=-1).allclose(torch.ones(50, 6))
