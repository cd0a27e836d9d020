"""The journal only grows, and what a kill left half-written costs one line of it."""

from __future__ import annotations

import json

import pytest
import torch

from vcreg_hub.training.journal import Journal


def test_lines_are_added_and_told_apart(tmp_path):
    journal = Journal(tmp_path)
    assert journal.lines() == [] and journal.sessions() == []
    journal.append("start", step=0, processes=2, threads=4)
    journal.append("saved", step=5)
    journal.append("signal", name="SIGTERM", step=5)
    journal.append("settings", changed={"optim.lr": [0.1, 0.01]})
    journal.append("start", step=5, processes=1, threads=8)
    assert [line["step"] for line in journal.lines("saved", "signal")] == [5, 5]
    assert all(line["time"].endswith("+00:00") for line in journal.lines())
    assert journal.sessions() == [
        {"step": 0, "processes": 2, "threads": 4, "signal": {"name": "SIGTERM", "after_step": 5}},
        {"step": 5, "processes": 1, "threads": 8, "changed": {"optim.lr": [0.1, 0.01]}},
    ]


@pytest.mark.parametrize("torn", ['{"event": "sav', "\0\0\0", "7\n", "\xff\n"])
def test_a_torn_line_is_passed_over_and_gone_on_after(tmp_path, torn):
    journal = Journal(tmp_path)
    journal.append("saved", step=1)
    with open(journal.path, "a", encoding="latin-1") as file:
        file.write(torn)
    assert [line["step"] for line in journal.lines("saved")] == [1]
    journal.append("saved", step=2)
    assert [line["step"] for line in Journal(tmp_path).lines("saved")] == [1, 2]


def test_a_loss_that_is_not_finite_is_json_too(tmp_path):
    Journal(tmp_path).progress(1, 1, 10, 32, torch.tensor(float("nan")))
    (line,) = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] is None


def test_progress_is_told_half_a_minute_apart(tmp_path):
    journal = Journal(tmp_path)
    for step in range(1, 100):
        journal.progress(1, step, 100, 32, torch.tensor(0.5))
    assert len(journal.lines("progress")) == 1
