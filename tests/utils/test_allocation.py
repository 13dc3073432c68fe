"""Freed memory is used again, and who has set malloc up is left alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource, sys
import numpy as np
from xretrieve.utils.allocation import keep_freed_memory

done = keep_freed_memory() if sys.argv[1] == "keep" else None
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)  # 64 MiB that are freed at once
print(done, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(how, **more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", CODE, how]
    told = subprocess.run(command, env=clean | more, capture_output=True, text=True, check=True)
    done, faults = told.stdout.split()
    return done, int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_a_block_that_was_freed_costs_no_new_pages():
    (_, mapped), (done, kept) = run("leave"), run("keep")
    assert done == "True" and kept < 100 < mapped


def test_variables_of_the_user_count():
    assert run("keep", MALLOC_ARENA_MAX="2")[0] == "False"
