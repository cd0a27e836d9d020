"""Adds the closed-form gradient within a backward pass, through an identity on the features.

Under torch.compile the backward is traced, so there it calls a custom operator, which runs the very same code when the
compiled backward pass does: counting, warnings and exactness do not depend on the mode.
"""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ..errors import AttachError
from ..placement.sites import Site
from .gradient import add_gradient, no_autocast
from .loss import covariance, rows, too_few_rows
from .loss_scale import LossScale, functorch_runs, refuse_transforms
from .statistics import Statistics
from .vcreg import Regularizer, VCReg

# Graphs carry numbers, not objects: the key of an injection, and the half type that the forward pass ran under.
_INJECTIONS: WeakValueDictionary[int, Injection] = WeakValueDictionary()
_keys = itertools.count()
_HALF = (None, torch.bfloat16, torch.float16)
# How many unwatched backward passes are looked at for signs of accumulation.
_LOOKS = 8


class Injection:
    """The common state of one attachment's hooks: coefficients, sites, scale of the loss, statistics."""

    def __init__(self, model: nn.Module, cfg: Regularizer, sites: Sequence[Site]) -> None:
        self.model, self.cfg = model, cfg
        self.names = names = [site.name for site in sites]
        self.axes = [site.channel_axis for site in sites]
        self.on_input = [site.side == "input" for site in sites]
        first = next(model.parameters(), torch.empty(0))
        self.scale = LossScale(first.device)
        # Of another regularizer's sites the losses told are those of VCReg's defaults.
        self.statistics = Statistics(names, cfg if isinstance(cfg, VCReg) else VCReg())
        self.forwards = 0  # features that passed a hook, outside of compiled code
        self.called = False  # whether a hook was called at all, or compiled
        self.paused = 0  # how many `paused` blocks are open
        self._unwatched_looks = 0
        self._walked = False  # whether a watched backward pass ended
        self.copied_from: int | None = None
        self._told: set[str] = set()
        self._register()

    def _register(self) -> None:
        self.key = next(_keys)
        _INJECTIONS[self.key] = self

    def __deepcopy__(self, memo: dict[int, Any]) -> Injection:
        """A copy of the model has one of its own. A copied part, such as the classifier that peft's `modules_to_save`
        replaces by its copy, stays a site of this one."""
        if id(self.model) not in memo:
            return self
        memo[id(self)] = other = type(self).__new__(type(self))
        other.__setstate__(copy.deepcopy(self.__dict__, memo))
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.copied_from, self.forwards = self.key, 0
        self._register()  # a copy (EMA, pickle) must not answer for the original

    def applies(self, module: nn.Module) -> bool:
        """Whether a forward pass of `module` is one of training, and not the recording of a graph for elsewhere."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            return False
        if torch.compiler.is_compiling():
            _note_compiled(self.key)
        else:
            self.called = True
            if getattr(module, "_is_replica", False):
                raise AttachError(
                    "torch.nn.DataParallel runs copies of the model on parts of a batch, and none of them knows how "
                    "many share the loss. Launch one process a GPU instead (torchrun, DistributedDataParallel), or "
                    "show one GPU alone (CUDA_VISIBLE_DEVICES=0)."
                )
            if module.training and not torch.is_grad_enabled():
                self.scale.hide()
        return module.training and torch.is_grad_enabled()

    def through(self, index: int, z: Tensor) -> Tensor:
        """z unchanged, with the gradient of site `index` waiting in its backward."""
        if self.paused and functorch_runs():
            return z
        refuse_transforms(self.names[index])
        autocast = _autocast(z.device.type)
        if torch.compiler.is_compiling():
            if not z.requires_grad:
                return z
            compiled: Tensor = _Inject.apply(z, self.scale.open, self.key, index, autocast)
            return compiled
        self.forwards += 1
        cell = self.scale.for_forward(index)
        inject = _inject_at(self.names[index])
        through: Tensor = inject.apply(z, cell, self, index, autocast) if z.requires_grad else z
        return through

    def watch(self, loss: Tensor, weight: float | Tensor = 1.0) -> None:
        self.scale.watch(loss, weight)
        if self._walked:
            self._report_missing()
        else:
            loss.register_hook(self._expect_sites)

    def _expect_sites(self, grad: Tensor) -> None:
        torch.autograd.Variable._execution_engine.queue_callback(self._find_ignored_hooks)

    def _find_ignored_hooks(self) -> None:
        """After the first watched backward pass: did any hook run?"""
        if self._walked or self.paused:
            return
        self._walked = True
        if self.forwards or any(self.statistics.backwards):
            return
        if any(other.copied_from == self.key and other.forwards for other in list(_INJECTIONS.values())):
            raise AttachError(
                "the loss of a copied model was watched by the original's attachment, so the copy's regularizer does "
                "not know how that loss is scaled. A copy has an attachment of its own: call copy.vcreg.watch(loss)."
            )
        if self.model.training and not self.called and self._sites_learnt():
            raise AttachError(
                "no hook ran in a watched step: the model, or a function that calls it, was compiled and called before "
                "attach, and torch.compile does not look at hooks again. Attach before the first compiled call, or "
                "call torch.compiler.reset()."
            )

    def _sites_learnt(self) -> bool:
        """Whether a parameter within a site has a gradient. Those of blocks that a step does not call have none."""
        modules = [self.model.get_submodule(name) for name in self.names]
        return any(p.grad is not None and bool(p.grad.any()) for module in modules for p in module.parameters())

    def _report_missing(self) -> None:
        """As the second step begins: did every site take part in the first? Its backward passes may have been several,
        each of a part of the graph."""
        if "missing" in self._told:
            return
        missing = [name for name, count in zip(self.names, self.statistics.backwards, strict=True) if not count]
        self._told.add("missing")
        if missing:
            warnings.warn(
                f"{len(missing)} of {len(self.names)} sites got no gradient in the first watched step and were not "
                f"regularized: {_some(missing)}. They were not called, are in eval mode, have nothing to train before "
                "them, or do not lead to the loss.",
                stacklevel=3,
            )

    def add(self, grad: Tensor, features: Tensor, cell: Tensor, index: int, autocast: int) -> Tensor:
        """grad plus the regularizer's gradient of site `index`, times the scale in `cell`."""
        if self.paused:
            return grad
        refuse_transforms(self.names[index], grad)
        reached = self.scale.bind(cell)
        if reached == "idle":  # a walk that no watched loss of this forward pass began
            return grad
        if reached == "unwatched":
            self._look_for_scaling(index, _HALF[autocast])
        if cell.device.type != "cpu" and cell.device != features.device:
            cell = cell.to(features.device)
        axis, observe = self.axes[index], self.statistics.observer(index)
        if torch.is_grad_enabled():  # create_graph=True: somebody will differentiate this gradient
            return grad + _differentiable(features, axis, self.cfg, cell)
        added = self._added(grad, features, cell, index, autocast, observe)
        if self.statistics.wants_share(index):
            # A half type rounds the sum at the size of the task's gradient, so there the addition is made alone.
            alone = torch.zeros_like(features, dtype=torch.float32) if grad.dtype in _HALF else None
            part = added - grad if alone is None else self._added(alone, features, cell, index, autocast, None)
            self.statistics.keep_share(index, grad, part)
        return added

    def _added(
        self, grad: Tensor, features: Tensor, cell: Tensor, index: int, autocast: int,
        observe: Callable[[Tensor], None] | None,
    ) -> Tensor:  # fmt: skip
        axis = self.axes[index]
        if not isinstance(self.cfg, VCReg):
            return grad + _of_rows(features, axis, self.cfg, cell, observe).to(grad.dtype)
        return add_gradient(grad, features, axis, self.cfg, cell, autocast=_HALF[autocast], observe=observe)

    def _look_for_scaling(self, index: int, autocast: torch.dtype | None) -> None:
        """A backward pass that nobody watched counts as scale 1. Warn where that is likely wrong."""
        if autocast == torch.float16:
            self._warn(
                "fp16",
                "a backward pass under float16 autocast was not watched: if a GradScaler scaled its loss, VCReg is too "
                "weak by that factor. Call loss = vc.watch(loss) before scaling, or vc.watch_module(criterion) once.",
            )
        # Looking waits for a GPU, and accumulation shows in the second backward pass.
        if "accumulated" in self._told or self._unwatched_looks >= _LOOKS:
            return
        gradients = [one for one in self._later_gradients(index) if type(one) is Tensor and not one.is_meta]
        if not gradients:  # nothing there to look at
            return
        self._unwatched_looks += 1
        if bool(torch.stack([one.any() for one in gradients]).any()):  # one answer to wait for
            self._warn(
                "accumulated",
                "a backward pass that was not watched found gradients of an earlier one: if the loss is divided for "
                "gradient accumulation, VCReg is too strong by that factor. Call loss = vc.watch(loss) before "
                "dividing, or vc.watch_module(criterion) once.",
            )

    def _later_gradients(self, index: int) -> list[Tensor]:
        """Gradients of parameters that this backward pass has not come to yet, at site `index`: what is there already
        is from an earlier backward pass. A module's own parameters come after its output. All of them are looked at:
        behind a normalisation whose weight starts at 0, as the last one of a ResNet's block, the others have none."""
        site = self.model.get_submodule(self.names[index])
        within = {id(p) for p in site.parameters()}
        own = [p for p in site.parameters() if p.requires_grad]
        if not self.on_input[index] and own:
            return [p.grad for p in own if p.grad is not None]
        before = next((p for p in self.model.parameters() if p.requires_grad and id(p) not in within), None)
        return [] if before is None or before.grad is None else [before.grad]

    def _warn(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(message, stacklevel=2)


class _Inject(torch.autograd.Function):
    """Identity; its backward adds the gradient. `owner` is an Injection, or the key of one in compiled code."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, cell: Tensor, owner: Injection | int, index: int, autocast: int) -> Tensor:
        ctx.save_for_backward(z)  # the next block keeps its input anyway, so this keeps nothing alive
        ctx.cell, ctx.owner, ctx.index, ctx.autocast = cell, owner, index, autocast
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if torch.compiler.is_compiling():
            (z,) = ctx.saved_tensors
            return _add(grad, z, ctx.cell, ctx.owner, ctx.index, ctx.autocast), None, None, None, None
        owner: Injection = ctx.owner
        z = _saved(ctx, owner.names[ctx.index])
        return owner.add(grad, z, ctx.cell, ctx.index, ctx.autocast), None, None, None, None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _note_compiled(key: int) -> bool:
    """Runs while a forward pass is being compiled, at each hook."""
    injection = _INJECTIONS[key]
    injection.called = injection.scale.traced = True
    return True


@functools.cache
def _inject_at(site: str) -> type[_Inject]:
    """The function under a name of its own: torch's error for an in-place operation behind it says that name."""
    return type(f"VCReg at {site}: ", (_Inject,), {})


@torch.library.custom_op("vcreg_hub::add_gradient", mutates_args=())
def _add(grad: Tensor, features: Tensor, cell: Tensor, key: int, index: int, autocast: int) -> Tensor:
    injection = _INJECTIONS.get(key)
    if injection is None:
        raise AttachError("a compiled model outlived its attachment: keep the Attachment, or compile after detach")
    return injection.add(grad, features, cell, index, autocast)


@_add.register_fake
def _(grad: Tensor, features: Tensor, cell: Tensor, key: int, index: int, autocast: int) -> Tensor:
    return torch.empty_like(features, dtype=grad.dtype)


def _of_rows(z: Tensor, axis: int, cfg: Regularizer, scale: Tensor, observe: Callable[[Tensor], None] | None) -> Tensor:
    """The gradient of any regularizer on the rows of z, times `scale`, shaped like z. Of the local batch only."""
    with no_autocast(z):
        h = rows(z.detach(), axis)
        h = h if h.dtype == torch.float64 else h.float()
        if too_few_rows(h.shape[0]):
            return torch.zeros_like(z)
        if observe is not None:
            observe(covariance(h))
        moved = z.movedim(axis, -1)
        return (cfg.gradient_of(h) * scale).view(moved.shape).movedim(-1, axis)


def _differentiable(z: Tensor, axis: int, cfg: Regularizer, scale: Tensor) -> Tensor:
    """The same gradient, made of operations that autograd knows. Of the local batch only."""
    if isinstance(cfg, VCReg) and (cfg.sync or cfg.gradient != "loss"):
        raise AttachError("a gradient of a gradient (create_graph=True) needs VCReg(gradient='loss', sync=False)")
    h = rows(z, axis)
    if too_few_rows(h.shape[0]):
        return torch.zeros_like(z)
    return torch.autograd.grad(cfg.loss_of(h) * scale, z, create_graph=True)[0]


def _saved(ctx: Any, site: str) -> Tensor:
    try:
        z: Tensor = ctx.saved_tensors[0]
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise AttachError(
            f"the features of site {site} were overwritten in place after they left it, so their covariance is lost. "
            "Make that operation out of place, or leave the site out of `where`."
        ) from error
    return z


def replace_first_float(value: Any, change: Any) -> tuple[Any, bool]:
    """`value` with its first floating-point tensor t replaced by change(t), and whether there was one.

    value: a tensor, or tuples, lists and mappings of them; mappings (a ModelOutput) and lists are changed in place.
    """
    if isinstance(value, Tensor):
        return (change(value), True) if value.is_floating_point() else (value, False)
    if isinstance(value, Mapping):
        for key, item in value.items():
            item, done = replace_first_float(item, change)
            if done:
                value[key] = item  # type: ignore[index]
                return value, True
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            item, done = replace_first_float(item, change)
            if done:
                parts = [*value[:i], item, *value[i + 1 :]]
                if isinstance(value, list):
                    return parts, True
                return (type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)), True
    return value, False


def _autocast(device_type: str) -> int:
    """The place in _HALF of the half type that operations run in."""
    if not (torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type)):
        return 0
    dtype = torch.get_autocast_dtype(device_type)
    return _HALF.index(dtype) if dtype in _HALF else 0


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ... {names[-1]}"
