"""Training from random weights on your own images: class folders, a table, or columns of a data set."""

from __future__ import annotations

from ..config import Data, Model, Optim, Recipe, Train
from ..evals.classification import Classification


def classification() -> Recipe:
    """ResNet-18 from random weights on your own images; the baseline.

    Command: vcreg train folder:classification --set data.root=DIR
    data.root: class folders (train/ and test/, or the class folders themselves, of which a test set is split off); they
    may lie in folders of superclasses (--set data.labels=superclass); with --set data.name=csv a table of paths and
    labels; with --set data.name=hf:<id> a data set of the Hub. --set evals=classification,linear_probe
    --set evals.linear_probe.labels=... probes other labels of the same images.
    A small set is trained in smaller batches, for 2,000 steps in all where batches of 8 give them. Best weights are
    picked on a tenth of the training images, never on the test images. A few hundred images are better spent on
    `finetune:image`.
    """
    return Recipe(
        name="folder_classification",
        model=Model("resnet18"),
        data=Data("folder", val_fraction=0.1, image_size=128, resize=144, scale=(0.35, 1.0), augment="ta_wide"),
        optim=Optim("adamw", lr=1e-3, weight_decay=0.05, norm_weight_decay=0.0, bias_weight_decay=0.0, warmup_epochs=3,
                    schedule_per="step"),
        train=Train(epochs=60, batch_size=64, label_smoothing=0.1, keep="best", min_steps=2000),
        evals=(Classification(),),
    )  # fmt: skip
