"""torchrun with the exit code of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
open("started", "w").close()
if sys.argv[1] == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60 if sys.argv[1] == "wait" else 0)
sys.exit(int(sys.argv[1]))
"""


def started(folder, word):
    (folder / "program.py").write_text(PROGRAM)
    command = [
        sys.executable,
        "-m",
        "vcreg_hub.run.launch",
        "--standalone",
        "--nproc-per-node",
        "1",
        "program.py",
        word,
    ]
    return subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ | {"VCREG_GRACE": "9"}
    )


@pytest.mark.parametrize(("word", "code"), [("0", 0), ("3", 3), ("75", 75), ("kill", 137)])
def test_the_exit_code_is_that_of_the_process(tmp_path, word, code):
    process = started(tmp_path, word)
    _, err = process.communicate(timeout=100)
    assert process.returncode == code, err
    assert "Traceback" not in err


@pytest.mark.parametrize("sent", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_goes_on_to_the_processes_and_is_75(tmp_path, sent):
    process = started(tmp_path, "wait")
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 75 and f"launch: {sent.name}; the same command goes on" in err
