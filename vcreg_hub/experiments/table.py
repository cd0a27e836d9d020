"""The experiments of this package, by name. `vcreg reproduce NAME` walks one.

The rows stand in a file a subject. The order is that of the listing.
"""

from __future__ import annotations

from .experiment import Experiment
from .images import IMAGES
from .superclasses import SUPERCLASSES
from .transfer import TRANSFER
from .videos import VIDEOS

EXPERIMENTS: dict[str, Experiment] = {**SUPERCLASSES, **IMAGES, **TRANSFER, **VIDEOS}
