"""The two moons of Pezeshki et al. (2021), on which plain training learns one straight feature and no more.

The moons have a gap, so that a straight line parts them, and gradients vanish before their curves are learnt (Figures 2
and 5 of the paper). What is asked is whether the boundary follows the curves: its accuracy on moons that overlap, and
its distance to the points.
"""

from __future__ import annotations

from ..config import Data, Model, Optim, Recipe, Train
from ..evals.boundary import Boundary
from ..evals.classification import Classification


def mlp() -> Recipe:
    """Two hidden layers of 500 on 300 points, 10,000 steps on all of them, without regularization; the baseline.

    Command: vcreg train moons:mlp
    Cost: two minutes on one CPU core. Points and weights are drawn by `train.seed`.
    Loss, optimizer, rate, noise and margin are those of the original code; it has one hidden layer, the paper's
    network has three layers.
    """
    return Recipe(
        name="moons_mlp",
        model=Model("mlp"),
        data=Data("moons:0.1", image_size=1, crop="none", hflip=0.0, workers=0),
        optim=Optim("momentum", lr=1e-2, momentum=0.9, weight_decay=0.0, schedule="constant"),
        train=Train(epochs=10, batch_size=300),
        evals=(Classification(), Boundary()),
        where="hidden.*",
        assumed=("model.kwargs.hidden",),
    )
