"""The walk: recipe -> data -> model -> attach -> fit -> evaluate -> run folder."""

from __future__ import annotations

from .accelerator import make_accelerator as make_accelerator
from .claim import default_folder as default_folder
from .material import Material as Material
from .material import load_material as load_material
from .protocols import PROTOCOLS as PROTOCOLS
from .protocols import evaluate as evaluate
from .smoke import smoke_test as smoke_test
from .walk import build as build
from .walk import evaluate_run as evaluate_run
from .walk import load_run as load_run
from .walk import train as train
