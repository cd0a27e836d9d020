"""scikit-learn's 1,797 handwritten digits (8 x 8 pixels, shown at 32 x 32): real images without a download.

Small enough to train a network in half a minute on two CPU cores; too small to draw conclusions from.
"""

from __future__ import annotations

from ..config import Data, Model, Optim, Recipe, Train
from ..evals.classification import Classification
from ..evals.linear_probe import LinearProbe


def convnext_atto() -> Recipe:
    """ConvNeXt-Atto on digits, trained on superclasses and probed on the ten digits; the baseline.

    Command: vcreg train digits:convnext_atto
    """
    return Recipe(
        name="digits_convnext_atto",
        model=Model("convnext_atto"),
        data=Data("digits", labels="superclass", image_size=32, crop="pad", hflip=0.0, workers=0),
        optim=Optim("adamw", lr=2e-3, weight_decay=0.05, norm_weight_decay=0.0, warmup_epochs=1, schedule_per="step"),
        train=Train(epochs=10, batch_size=64),
        evals=(Classification(), LinearProbe()),
    )
