"""Work in several processes: the same results in the same order, and failures that end it in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from xretrieve.errors import XRetrieveError
from xretrieve.utils.processes import Workers, side_by_side

ROOT = Path(__file__).resolve().parents[2]


def whose(number: int, folder: Path) -> tuple[int, int]:
    """Waits until two calls have begun, so that they must run at once."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return number, os.getpid()


def fails(number: int) -> None:
    if number == 1:
        raise XRetrieveError("the second is bad")
    time.sleep(600)


def dies(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_calls_run_at_once_and_their_results_keep_their_order(tmp_path: Path) -> None:
    found = side_by_side(whose, [(n, tmp_path) for n in (2, 1, 3)], jobs=2)
    assert [number for number, _ in found] == [2, 1, 3]
    assert len({process for _, process in found}) == 2 and os.getpid() not in dict(found).values()


def test_one_job_starts_no_process() -> None:
    here: list[int] = []
    assert side_by_side(here.append, [(1,), (2,)], jobs=1) == [None, None] and here == [1, 2]
    assert side_by_side(here.append, [(3,)], jobs=4) == [None] and here[-1] == 3


def test_work_begins_before_all_of_it_is_known_and_each_result_is_told_at_once(tmp_path: Path) -> None:
    def pieces() -> Iterator[tuple[int, Path]]:
        yield 1, tmp_path
        while not (tmp_path / "1").exists():  # else the first call waits for the second one, which is not made yet
            time.sleep(0.01)
        yield 2, tmp_path

    told: list[tuple[int, int]] = []
    made = side_by_side(whose, pieces(), 2, told.append)
    assert [number for number, _ in made] == [1, 2] and sorted(told) == sorted(made)
    here: list[str] = []
    assert side_by_side(str, iter([(3,), (4,)]), 1, here.append) == here == ["3", "4"]


def own_process(folder: Path) -> int:
    (folder / str(os.getpid())).touch()
    return os.getpid()


def test_processes_stay_for_the_next_work_and_a_failed_preparation_is_none_of_its_business(tmp_path: Path) -> None:
    with Workers(2) as workers:
        workers.start(own_process, tmp_path / "missing")
        workers.start(own_process, tmp_path)
        made = workers.all(own_process, [(tmp_path,)] * 4)
        again = workers.all(own_process, [(tmp_path,)] * 4)
    assert set(again) & set(made) and len(list(tmp_path.iterdir())) <= 2
    with Workers(1) as workers:
        workers.start(own_process, tmp_path)
        assert not (tmp_path / str(os.getpid())).exists() and workers.all(str, [(1,)]) == ["1"]


def test_the_first_failure_ends_the_others() -> None:
    with pytest.raises(XRetrieveError, match="the second is bad"):
        side_by_side(fails, [(0,), (1,), (2,)], jobs=2)


def test_a_killed_process_and_a_wrong_number_are_told() -> None:
    with pytest.raises(XRetrieveError, match="a process was killed.*--jobs 1"):
        side_by_side(dies, [(0,), (1,)], jobs=2)
    with pytest.raises(XRetrieveError, match="jobs is 0"):
        side_by_side(fails, [], jobs=0)


ORPHANS = """
import os, signal, sys, time
from xretrieve.utils.processes import side_by_side
def work(folder, number):
    with open(f"{folder}/{number}", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
    side_by_side(work, [(sys.argv[1], 0), (sys.argv[1], 1)], 2)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_goes_on_when_the_command_is_stopped(tmp_path: Path, how: signal.Signals) -> None:
    script, folder = tmp_path / "script.py", tmp_path / "out"
    script.write_text(ORPHANS)
    folder.mkdir()
    main = subprocess.Popen([sys.executable, str(script), str(folder)], stderr=subprocess.DEVNULL,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    end = time.monotonic() + 120
    while len([path for path in folder.iterdir() if path.read_text()]) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    workers = [int(path.read_text()) for path in folder.iterdir()]
    assert len(workers) == 2
    main.send_signal(how)
    assert main.wait(60) != 0
    while any(map(alive, workers)):
        assert time.monotonic() < end, "a process goes on without its parent"
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Zombies, whom nobody waits for in a container, do nothing any more."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
