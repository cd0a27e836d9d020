"""The moving average of the weights, on torch's AveragedModel.

Rule `plain`: the first update copies, each later one moves the average by 1 - decay towards the weights.
Rule `torchvision` (its reference training): the decay is rescaled, because it was found for one batch size and length,
    alpha = min(1, (1 - decay) * batch_size * ema_every / epochs),   decay in use = 1 - alpha,
and while the learning rate warms up every update copies. Buffers are averaged like the weights in both.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..config import Train
from ..errors import ConfigError


class Ema:
    """`module` is the averaged network, in evaluation mode, so that a regularizer's copied hooks do nothing."""

    def __init__(self, model: nn.Module, decay: float, every: int, copy_until: int, steps_per_epoch: int) -> None:
        self.decay, self.every, self.copy_until, self.steps_per_epoch = (
            decay,
            every,
            copy_until,
            steps_per_epoch,
        )
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self._averaged.requires_grad_(False).eval()

    @property
    def module(self) -> nn.Module:
        return self._averaged.module

    def update(self, model: nn.Module, step: int) -> None:
        """To be called after every optimizer step; step: how many have been taken, from 1.

        An update happens at the first step of each epoch and every `every` steps from there, as in torchvision.
        """
        taken = step - 1
        if (taken % self.steps_per_epoch) % self.every:
            return
        self._averaged.update_parameters(model)
        if taken < self.copy_until:
            self._averaged.n_averaged.zero_()  # type: ignore[operator, union-attr]  # the next update copies again

    def buffers(self) -> dict[str, Tensor]:
        """The averaged buffers, and how often was averaged, under their names in `state_dict`."""
        return dict(self._averaged.named_buffers())

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors only: the averaged weights and buffers, and how often they were averaged."""
        return self._averaged.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._averaged.load_state_dict(state)


def build_ema(model: nn.Module, train: Train, warmup_epochs: int, steps_per_epoch: int) -> Ema | None:
    """The recipe's average, None for none. `train.batch_size` is that of all processes together.

    Errors: ConfigError for an unknown rule.
    """
    if train.ema_decay is None:
        return None
    if train.ema_rule == "plain":
        return Ema(model, train.ema_decay, train.ema_every, 0, steps_per_epoch)
    if train.ema_rule == "torchvision":
        moves = min(1.0, (1 - train.ema_decay) * train.batch_size * train.ema_every / train.epochs)
        return Ema(model, 1 - moves, train.ema_every, warmup_epochs * steps_per_epoch, steps_per_epoch)
    raise ConfigError(f"train.ema_rule={train.ema_rule!r}: expected plain or torchvision")
