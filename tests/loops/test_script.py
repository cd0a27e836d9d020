"""Programs run with the names registered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vcreg_hub.errors import UsageError
from vcreg_hub.loops.script import main

PROGRAM = """
import sys, timm
from beside import VALUE
if __name__ == "__main__":
    print(timm.is_model("resnet50_vcreg"), VALUE, sys.argv, __file__)
    sys.exit(3)
"""


def test_a_program_sees_what_it_sees_alone_and_the_names(tmp_path):
    (tmp_path / "beside.py").write_text("VALUE = 7\n")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "vcreg_hub.loops.script", str(program), "--model", "x"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout.split("\n")[0] == f"True 7 {[str(program), '--model', 'x']} {program}", done.stderr
    assert done.returncode == 3


@pytest.mark.parametrize(("arguments", "said"), [([], "usage"), (["--help"], "usage"), (["no/such.py"], "no file")])
def test_what_is_no_program_is_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        main(arguments)
