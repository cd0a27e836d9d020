"""A multilayer perceptron for points, registered with timm as `mlp` by `import vcreg_hub`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..errors import ConfigError

__all__ = ["MLP", "mlp"]


class MLP(nn.Module):
    """Hidden layers and a classifier; x: (n, in_chans) -> logits (n, num_classes).

    hidden: widths of the hidden layers, each Linear, BatchNorm where `norm`, Dropout and ReLU, as in Pezeshki et al.
    (2021); `where=hidden.*` is their outputs. Two classes have one output z and the logits (-z / 2, z / 2): their
    cross-entropy is log(1 + exp(-y z)) with y = -1 or 1, the logistic loss.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (500, 500),
        num_classes: int = 2,
        in_chans: int = 2,
        drop_rate: float = 0.0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ConfigError("model.kwargs.hidden is the width of each hidden layer, got none")
        self.num_classes, self.in_chans = num_classes, in_chans
        self.num_features = self.head_hidden_size = hidden[-1]
        widths = itertools.pairwise([in_chans, *hidden])
        self.hidden = nn.Sequential(*(_layer(*pair, drop_rate, norm) for pair in widths))
        self.fc: nn.Module
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, in_chans) -> (n, hidden[-1])."""
        features: Tensor = self.hidden(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The logits of `forward_features`' rows; with `pre_logits` the rows themselves."""
        if pre_logits:
            return x
        z: Tensor = self.fc(x)
        return torch.cat([-z / 2, z / 2], dim=1) if self.num_classes == 2 else z

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier for `num_classes`; 0 for none."""
        self.num_classes = num_classes
        outputs = 1 if num_classes == 2 else num_classes
        self.fc = nn.Linear(self.num_features, outputs) if outputs else nn.Identity()


def _layer(inputs: int, width: int, drop_rate: float, norm: bool) -> nn.Sequential:
    norms = [nn.BatchNorm1d(width)] if norm else []
    drops = [nn.Dropout(drop_rate)] if drop_rate else []
    return nn.Sequential(nn.Linear(inputs, width), *norms, *drops, nn.ReLU())


# timm reads this table when the function below is registered. A point has no height and width.
default_cfgs = generate_default_cfgs(
    {"mlp": {"num_classes": 2, "input_size": (2, 1, 1), "first_conv": "hidden.0.0", "classifier": "fc"}}
)


@register_model
def mlp(pretrained: bool = False, **kwargs: Any) -> MLP:
    """Two hidden layers of 500, 0.25 million parameters. Through `timm.create_model("mlp")`."""
    return build_model_with_cfg(MLP, "mlp", pretrained, **kwargs)
