"""The walk: recipe -> data -> model -> attach -> fit -> evaluate -> run folder."""

from __future__ import annotations

from .accelerator import make_accelerator as make_accelerator
from .build import build as build
from .build import load_run as load_run
from .evaluate import evaluate_run as evaluate_run
from .preview import preview as preview
from .smoke import smoke_test as smoke_test
from .train import train as train
