"""A fixed classifier: a simplex equiangular tight frame (Zhu et al. 2021, section 5).

Its c vectors in d >= c - 1 dimensions are as far apart as c vectors can be: unit length, each pair at cosine -1/(c-1).
That is the classifier that a trained network tends to by itself where its features collapse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .outputs import classifiers


def _simplex_frame(classes: int, width: int) -> Tensor:
    """(classes, width) float64: rows of unit length, every two at cosine -1 / (classes - 1), turned at random.

    >>> frame = _simplex_frame(3, 5)
    >>> (frame @ frame.T).round(decimals=6).tolist()
    [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]

    The turn is drawn from torch's generator. Errors: ConfigError for fewer than classes - 1 dimensions.
    """
    if not 2 <= classes <= width + 1:
        raise ConfigError(
            f"a fixed classifier of {classes} classes needs features of {classes - 1} dimensions or more, the network "
            f"has {width}: leave task.etf_length at null"
        )
    centred = torch.eye(classes, dtype=torch.float64) - 1 / classes
    plane = torch.linalg.qr(centred[:, :-1]).Q
    turned = torch.linalg.qr(torch.randn(width, classes - 1, dtype=torch.float64)).Q
    return (classes / (classes - 1)) ** 0.5 * plane @ turned.T


def linear_classifier(network: nn.Module, example_input: Tensor) -> nn.Linear:
    """A network's classifier, one linear layer. Errors: ConfigError where it is none, or several."""
    found = [site.module for site in classifiers(network, example_input)]
    if len(found) != 1 or not isinstance(found[0], nn.Linear):
        kinds = ", ".join(type(module).__name__ for module in found)
        raise ConfigError(
            f"the task shapes the classifier, one linear layer; that of {type(network).__name__} is {kinds}"
        )
    return found[0]


@torch.no_grad()
def fix_classifier(network: nn.Module, example_input: Tensor, length: float) -> None:
    """Fixes a network's classifier: a simplex frame with rows of `length`, and no bias.

    Errors: ConfigError for a classifier that is not one linear layer, or has too few inputs.
    """
    layer = linear_classifier(network, example_input)
    layer.weight.copy_(length * _simplex_frame(layer.out_features, layer.in_features))
    layer.weight.requires_grad_(False)
    if layer.bias is not None:
        layer.bias.zero_().requires_grad_(False)
