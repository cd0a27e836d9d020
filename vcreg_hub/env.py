"""Describes a run's surroundings: packages, device, processes, commit. No name of a machine, a person or a path."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from .files import JSON

PACKAGES = ("vcreg_hub", "torch", "torchvision", "timm", "transformers", "accelerate", "datasets", "huggingface_hub",
            "safetensors", "scikit-learn", "numpy", "av", "torchcodec", "decord2")  # fmt: skip


def describe_env(processes: int = 1) -> JSON:
    """The environment as JSON-ready values.

    commit / dirty are those of the source tree this package is imported from; both None when it is not a git checkout.
    """
    import torch

    commit, dirty = _commit()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "device": _device(),
        "devices": torch.cuda.device_count() or 1,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "cpu_count": os.cpu_count(),
        "commit": commit,
        "dirty": dirty,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({_cpu_model()})"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> tuple[str | None, bool | None]:
    package = Path(__file__).resolve().parent
    if not (package.parent / ".git").exists():
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
