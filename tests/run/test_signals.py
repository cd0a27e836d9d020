"""Signals that ask to stop are noted between steps, and end everything else at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from vcreg_hub.errors import ConfigError, StoppedError
from vcreg_hub.run.signals import Signals


def test_a_signal_is_noted_between_steps_and_a_second_ctrl_c_leaves_at_once():
    with Signals() as signals, signals.deferred() as asked, pytest.raises(KeyboardInterrupt):
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked() and signals.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still here")


def test_a_launcher_may_repeat_its_signal():
    with Signals() as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.name == "SIGUSR1"
        assert str(signals.error(7)).startswith("stopped by SIGUSR1 after step 7, which is saved")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_what_is_no_step_ends_at_once_whatever_it_catches(sent):
    with pytest.raises(StoppedError, match=f"stopped by {sent.name}") as error, Signals():
        try:
            os.kill(os.getpid(), sent)
        except Exception:
            pytest.fail("taken for a failure")
    assert error.value.exit_code == 75


def test_what_listened_to_signals_before_does_so_afterwards():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_step_that_never_ends_is_left_when_the_grace_is_over(tmp_path):
    stuck = """
        import os, signal, time
        from vcreg_hub.run.signals import Signals
        with Signals() as signals, signals.deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(60)
    """
    environment = os.environ | {"VCREG_GRACE": "0.5"}
    command = [sys.executable, "-c", textwrap.dedent(stuck)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)
    assert ended.returncode == 75
    assert ended.stderr == "vcreg: SIGUSR1, and no state could be saved within 0.5 seconds; the last one is kept\n"
    with pytest.raises(ConfigError, match="VCREG_GRACE is a number of seconds"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCREG_GRACE", "soon")
        Signals()
