"""Attaches VCReg to a model, and detaches it.

Forward pass, state dict and saved files are those of the plain model; only gradients change.

    with attach(model, VCReg(alpha=0.64, beta=0.08)) as vc:
        for x, y in batches:
            vc.watch(criterion(model(x), y)).backward()
            optimizer.step()
            optimizer.zero_grad()
"""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import AttachError, BlocksNotFoundError, UsageError
from ..placement.dry_run import tensors_of, unwrap
from ..placement.sites import Site, find_blocks
from .injection import Injection, replace_first_float
from .vcreg import Regularizer

# What torch.jit.script calls on a module, if it is there, for the module to compile in its place.
_PREPARE = "__prepare_scriptable__"


def attach(
    model: nn.Module,
    cfg: Regularizer,
    where: str = "blocks",
    example_input: Any = None,
    sites: Sequence[Site] | None = None,
) -> Attachment:
    """Regularize `model` with `cfg` at `where` (see `find_blocks`), or at the given `sites`; sets `model.vcreg`.

    Works in training mode with gradients enabled and is inert otherwise. Attach before the first call of a compiled
    model. What torch.jit, torch.export, torch.onnx and torch.fx make of the model is the plain network. Raises
    AttachError when the model is attached already or was compiled and called, BlocksNotFoundError when `where` finds
    nothing, UsageError for an argument of another type.
    """
    if not isinstance(cfg, Regularizer):
        raise UsageError(
            f"attach takes a regularizer such as VCReg, got {cfg!r}; for example "
            "attach(model, VCReg(alpha=0.64, beta=0.08))"
        )
    if not isinstance(model, nn.Module):
        raise UsageError(f"attach takes a torch module first, such as timm.create_model('resnet18'), got {model!r}")
    if not isinstance(where, str):
        raise UsageError(f"where is text: 'blocks', another placement, or a glob over module names; got {where!r}")
    inner = unwrap(model)
    _refuse_attached(inner)
    if sites is None:
        _refuse_sharded(inner)
        sites = find_blocks(inner, where, example_input)
    sites = list(sites)
    _check_sites(inner, sites)
    _refuse_compiled(model, inner, sites)
    injection = Injection(inner, cfg, sites)
    attachment = Attachment(injection, sites)
    attachment._handles = [_register(site, injection, i) for i, site in enumerate(sites)]
    attachment._handles += [
        inner.register_forward_pre_hook(_Replaced(site.name, site.module)) for site in sites if site.side == "input"
    ]
    for module in attachment._roots(model):
        module.__dict__["vcreg"] = attachment
    inner.__dict__[_PREPARE] = functools.partial(plain_copy, inner)
    return attachment


class Attachment:
    """A model's regularizer. `cfg`: its settings, `sites`: its places; also a context manager, detaching at the end."""

    def __init__(self, injection: Injection, sites: list[Site]) -> None:
        self.sites = sites
        self._injection = injection
        self._handles: list[RemovableHandle] = []
        self._marked: list[nn.Module] = []

    @property
    def cfg(self) -> Regularizer:
        return self._injection.cfg

    @torch.compiler.disable(  # type: ignore[untyped-decorator]
        reason="vc.watch reads the loss's gradient, which a full graph cannot: call it outside of the compiled function"
    )
    def watch(self, loss: Tensor, weight: float | Tensor = 1.0) -> Tensor:
        """`loss` itself; tells the injected gradient how the loss gets scaled from here on.

        Call it on what the criterion returns, before a GradScaler, accumulation or a weight multiplies it. weight: the
        share of a loss that is divided already, such as 1/4 for one that accumulation over four has divided before.
        Of the losses i watched of a forward pass, scaled by s_i, what is differentiated is the sum of
        s_i (loss_i + weight_i R), whatever the order and number of backward passes; a backward pass that none of them
        starts adds nothing. A forward pass that nobody watched counts as scale 1: right in plain float32 or bfloat16
        training without accumulation. A loss of several elements is taken to be reduced later. An unscaled gradient
        with respect to inputs (`torch.autograd.grad`) contains the regularizer's too, but for one within `paused`.
        """
        if not isinstance(weight, Tensor) and not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
            raise AttachError(
                f"watch: weight is a number from 0 up, the share of a loss that is divided already, got {weight!r}"
            )
        if isinstance(loss, Tensor) and loss.requires_grad and torch.is_grad_enabled():
            if not self._handles:
                raise AttachError("watch: this attachment was detached, so its model is not regularized; attach again")
            self._injection.watch(loss, weight)
        return loss

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Backward passes within the block add nothing: those of attacks, saliency maps and gradient penalties."""
        self._injection.paused += 1
        try:
            yield
        finally:
            self._injection.paused -= 1

    def watch_module(self, module: nn.Module) -> RemovableHandle:
        """Watch every output of `module`, for uneditable loops; `remove()` or `detach` ends it.

        module: a criterion that returns the loss, or a model that returns one as `.loss` (transformers). Where
        transformers' Trainer passes `num_items_in_batch` under accumulation, the loss is a share of a larger batch's
        and the regularizer gets the same share.
        """
        handle = module.register_forward_hook(_WatchHook(self._injection), with_kwargs=True)
        self._handles.append(handle)
        return handle

    def statistics(self) -> list[dict[str, Any]]:
        """For each site what its last collected backward pass saw: "site", "variance_loss" and "covariance_loss"
        (Eqs. 1 and 2/6, before alpha and beta), "collapsed" (share of channels with a standard deviation below
        sqrt(eps)), "effective_rank" (participation ratio of the covariance's eigenvalues), "gradient_share" (norm of
        what is added at the site over the norm of the gradient that arrives there: the task's, and what was added at
        later sites), and "backwards", how many backward passes reached the site. A site that none reached has 0 and
        None.

        Collected in the 50 backward passes after attach or after a reading, then in every 50th: reading every step, or
        every 50, is exact. The share is taken in every 50th backward pass, the first one included, and is the mean of
        those since the last reading. Of this process's batch, or with sync=True the global one.
        """
        return self._injection.statistics.read()

    def state_dict(self) -> dict[str, Any]:
        """What `statistics` has counted and collected so far; the model's own state has none of it."""
        return self._injection.statistics.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting from a `state_dict`. Errors: ValueError for that of another number of sites."""
        self._injection.statistics.load_state_dict(state)

    def detach(self) -> None:
        """Leave the model as it was found. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        for module in self._marked:
            module.__dict__.pop("vcreg", None)
            module.__dict__.pop(_PREPARE, None)
        self._handles, self._marked = [], []

    def _roots(self, model: nn.Module) -> list[nn.Module]:
        """The model and, when it came wrapped by DistributedDataParallel, the wrapper: both get `.vcreg`."""
        inner = self._injection.model
        self._marked = [inner] if model is inner else [inner, model]
        return self._marked

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.detach()

    def __repr__(self) -> str:
        names = [site.name for site in self.sites]
        shown = ", ".join(names) if len(names) <= 3 else f"{names[0]} ... {names[-1]}"
        state = "" if self._handles else ", detached"
        return f"Attachment({self.cfg}, {len(names)} site{'s' * (len(names) != 1)}: {shown}{state})"


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of an attached model without the regularizer; the two share their tensors."""
    if model.training:
        warnings.warn(
            f"the scripted {type(model).__name__} is the plain network: training it is training without the "
            "regularizer. torch.compile keeps it.",
            stacklevel=2,
        )
    copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors_of(model)})
    attachment: Attachment = copied.__dict__["vcreg"]
    attachment.detach()
    return copied


class _OutputHook:
    """Forward hook of a site. A module-level object, so that deepcopy, EMA copies and pickled models carry it."""

    def __init__(self, injection: Injection, index: int) -> None:
        self.injection, self.index = injection, index

    @property
    def __name__(self) -> str:
        """What torch.jit.script asks a hook for."""
        raise AttachError(
            f"torch.jit.script cannot take the hook at {self.injection.names[self.index]!r}: script the whole "
            f"{type(self.injection.model).__name__}, of which it takes the plain network, or detach first"
        )

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if not self.injection.applies(module):
            return None
        return replace_first_float(output, lambda z: self.injection.through(self.index, z))[0]


class _InputHook(_OutputHook):
    """Forward pre-hook of a site whose input is regularized."""

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if not self.injection.applies(module):
            return None
        args, done = replace_first_float(args, lambda z: self.injection.through(self.index, z))
        if not done:
            kwargs, _ = replace_first_float(kwargs, lambda z: self.injection.through(self.index, z))
        return args, kwargs


class _Replaced:
    """Forward pre-hook of a model whose classifier is a site: a new classifier (timm's `reset_classifier`) has no hook,
    and nothing else would show that."""

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module

    def __call__(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or not model.training or not torch.is_grad_enabled():
            return
        now: nn.Module
        try:
            now = model.get_submodule(self.name)
        except AttributeError:
            now = nn.Identity()
        if self.module not in set(now.modules()):  # a wrapper that calls it is as good
            raise AttachError(
                f"the classifier {self.name!r} was replaced after attach, and the new one is not regularized: call "
                "model.vcreg.detach(), then attach again"
            )


class _WatchHook:
    """Forward hook that watches the loss a module returns."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection

    @torch.compiler.disable(reason="watch_module cannot be part of a full graph: register it on the compiled model")  # type: ignore[untyped-decorator]
    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not (module.training and torch.is_grad_enabled()):
            return
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", output)
        if isinstance(loss, tuple | list):
            loss = loss[0] if loss else None
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            raise AttachError(
                f"watch_module found no loss in what {type(module).__name__} returned ({type(output).__name__}): a "
                "criterion must return it, a transformers model does when it is given labels. Call vc.watch(loss) "
                "where the loss is made."
            )
        self.injection.watch(loss, _share_of_batch(module, kwargs))


def _share_of_batch(module: nn.Module, kwargs: dict[str, Any]) -> float | Tensor:
    """transformers' Trainer accumulates sums over `num_items_in_batch`, which no later division shows."""
    total = kwargs.get("num_items_in_batch")
    if total is None:
        return 1.0
    labels = kwargs.get("labels")
    if not isinstance(labels, Tensor):
        raise AttachError(
            f"{type(module).__name__} was given num_items_in_batch but no labels, so this batch's share is unknown. "
            "Set model.accepts_loss_kwargs = False before building the Trainer."
        )
    share: Tensor = (labels != -100).sum() / total
    return share


def _register(site: Site, injection: Injection, index: int) -> RemovableHandle:
    if site.side == "input":
        return site.module.register_forward_pre_hook(_InputHook(injection, index), with_kwargs=True)
    return site.module.register_forward_hook(_OutputHook(injection, index))


def _refuse_attached(model: nn.Module) -> None:
    for name, module in model.named_modules():
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        if any(isinstance(hook, _OutputHook) for hook in hooks):
            raise AttachError(
                f"{type(model).__name__} is attached already (at {name or 'the model'}): "
                "call model.vcreg.detach() first"
            )
    if "vcreg" in model.__dict__:
        raise AttachError(
            f"{type(model).__name__} has an attribute of its own named vcreg, where the Attachment would go: rename it"
        )


def _refuse_sharded(model: nn.Module) -> None:
    """The dry run that finds sites is one of a copy, and a sharded model cannot be copied."""
    if any(base.__name__ == "FSDPModule" for module in model.modules() for base in type(module).__mro__):
        raise AttachError(
            f"{type(model).__name__} is sharded already, so its blocks cannot be looked for. Attach before "
            "fully_shard, or pass sites=vcreg_hub.find_blocks(model) of before, which hold the same modules."
        )


def _check_sites(model: nn.Module, sites: Sequence[Site]) -> None:
    if not sites:
        raise BlocksNotFoundError(f"no sites given for {type(model).__name__}: pass at least one, or where='blocks'")
    inside = set(model.modules())
    for site in sites:
        if site.module not in inside:
            raise AttachError(f"site {site.name!r} is not a module of this {type(model).__name__}")
    if len({(site.module, site.side) for site in sites}) < len(sites):
        raise AttachError("a site is given twice: each module can be regularized once on each side")


def _refuse_compiled(model: nn.Module, inner: nn.Module, sites: Sequence[Site]) -> None:
    """torch.compile does not guard on hooks: code compiled before them, even for another instance, would be reused."""
    if "torch._dynamo" not in sys.modules:
        return
    try:
        from torch._C._dynamo.eval_frame import _debug_get_cache_entry_list
    except ImportError:  # not promised by torch; the first watched backward pass finds out anyway
        return

    within = {site.module for site in sites}
    frames: list[Any] = [type(m).forward for m in inner.modules() if m in within or within & set(m.modules())]
    frames.append(getattr(model, "_torchdynamo_orig_callable", None))
    for frame in frames:
        code = getattr(frame, "__code__", None)
        if code is not None and _debug_get_cache_entry_list(code):
            raise AttachError(
                f"{type(inner).__name__}, or another model of its class, was compiled and called before attach; "
                "torch.compile would reuse that code without the hooks. Attach before the first compiled call, or call "
                "torch.compiler.reset() first."
            )
