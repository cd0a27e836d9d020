"""Two processes with real collectives: the cases are in two_processes.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import two_processes

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{case: [distance on rank 0, distance on rank 1]}, from one run of both processes."""
    out = tmp_path_factory.mktemp("two_processes")
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "two_processes.py")]
    port = str(two_processes.free_port())
    ranks = [
        subprocess.Popen(
            [*command, str(rank), port, str(out)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(two_processes.WORLD)
    ]
    try:
        texts = [process.communicate(timeout=240)[0] for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    assert [process.returncode for process in ranks] == [0] * two_processes.WORLD, "\n".join(texts)
    each = [json.loads((out / f"{rank}.json").read_text()) for rank in range(two_processes.WORLD)]
    return {name: [result[name] for result in each] for name in two_processes.CASES}


@pytest.mark.parametrize("case", two_processes.CASES)
def test_averaged_gradients_are_those_of_the_explicit_loss(results, case):
    for result in results[case]:
        assert isinstance(result, float), result
        assert result < 1e-10
