"""Adds the closed-form gradient of `loss.py` to an incoming gradient, on a feature tensor as it lies in memory.

What a block puts out may have its channels last (tokens, channels_last images) or first (contiguous images), and the
tensor may be large. So the rows are centred a chunk at a time into a small buffer of the same layout: nothing else of
the size of the features is made but the result, and no layout is converted. The arithmetic is float32 or wider, except
for the two products on a CUDA device in a half type, which accumulate in float32.

The rows of a tensor are seen in it as it lies:

    >>> tokens, images = torch.zeros(2, 5, 3), torch.zeros(2, 3, 4, 4)
    >>> _as_matrix(tokens, -1).shape                       # channels last: the rows follow one another, (n, d)
    torch.Size([10, 3])
    >>> rows = _as_matrix(images, 1)                       # channels first: a matrix a sample, seen from the side
    >>> rows.shape, rows.stride()
    (torch.Size([2, 16, 3]), (48, 1, 16))

Two rows of two channels that go together, d = 2 and n = 2, alpha = 1, beta = 0.5 and delta = 1:

    z = [0 0]    X = [-1 -1]    C = X'X = [2 2]    variances above 1: nothing on M's diagonal
        [2 2]        [ 1  1]              [2 2]    clamp(C_ij) = 1, times 4 beta / (d (d-1) (n-1)) = 1 beside it

    M = [0 1]    X @ M = [-1 -1]    a step against it brings the rows together, and the covariance down
        [1 0]            [ 1  1]

    >>> z = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    >>> add_gradient(torch.zeros(2, 2), z, -1, VCReg(alpha=1, beta=0.5, delta=1))
    tensor([[-1., -1.],
            [ 1.,  1.]])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from .loss import Count, covariance_push, gradient_matrix, too_few_rows, variance_pull
from .vcreg import VCReg

# Elements centred at a time. On a CPU a chunk should stay in the cache, on a GPU it should fill the device.
_CHUNK = {"cpu": 2**19, "cuda": 2**24}
# A chunk of fewer rows would make its matrix products slow.
_MIN_ROWS = 512


def add_gradient(
    grad: Tensor,
    features: Tensor,
    channel_axis: int,
    cfg: VCReg,
    scale: float | Tensor = 1.0,
    *,
    autocast: torch.dtype | None = None,
    observe: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """grad + scale * d vcreg_loss(rows(features, channel_axis)) / d features, a new tensor laid out like `features`.

    grad, features: the same shape, floating point, channels on `channel_axis`. scale: a number or a 0-d tensor.
    autocast: the half type that the forward pass ran under, if any. observe: is shown the covariance (d, d) before it
    is overwritten. With `cfg.sync` and several processes every process must call this together; the result is then
    the gradient of the global batch's loss times the number of processes, because their gradients get averaged.
    """
    out = torch.empty_like(features, dtype=grad.dtype).copy_(grad)
    z, result = _as_matrix(features, channel_axis), _as_matrix(out, channel_axis)
    if z.dim() != result.dim():  # features with gaps between their elements, which `out` does not copy
        z = _as_matrix(torch.empty_like(features).copy_(features), channel_axis)
    with torch.no_grad(), no_autocast(features):
        rows = _Rows(z, _product_dtype(features, autocast))
        world = dist.get_world_size() if cfg.sync and dist.is_available() and dist.is_initialized() else 1
        if world > 1:
            _synced(rows, result, cfg, scale * world, observe)
        elif not too_few_rows(rows.n):
            _local(rows, result, cfg, scale, observe)
        if result._base is not out:  # strides that no matrix product can write to
            out.movedim(channel_axis, -1).copy_(result.view(out.movedim(channel_axis, -1).shape))
    return out


def no_autocast(t: Tensor) -> torch.autocast:
    """Ends autocast for what is computed from t. On a device without autocast (meta) there is none to end."""
    kind = t.device.type
    return torch.autocast(kind if torch.amp.is_autocast_available(kind) else "cpu", enabled=False)


def _as_matrix(t: Tensor, channel_axis: int) -> Tensor:
    """The rows of t without a copy where its strides allow: (n, d) with adjacent channels, or, for a tensor with its
    channels before its positions, (b, s, d) with adjacent positions. Otherwise a copy: (n, d)."""
    moved = t.movedim(channel_axis, -1)
    d = moved.shape[-1]
    for shape in ((-1, d), (moved.shape[0], -1, d)) if t.numel() else ():
        try:
            view = moved.view(shape)
        except RuntimeError:  # these strides cannot be seen as that shape
            continue
        if view.stride(-1) == 1 and view.dim() == 2:
            return view
        if view.stride(-2) == 1:
            return view if view.dim() == 3 else view.unsqueeze(0)
    return moved.reshape(-1, d)


class _Rows:
    """Centred rows of z, as (n, d) or (b, s, d), a chunk at a time."""

    def __init__(self, z: Tensor, dtype: torch.dtype, whole: bool = False) -> None:
        self.z, self.dtype = z, dtype
        self.d = z.shape[-1]
        self.n = z.numel() // self.d
        self.wide = torch.promote_types(z.dtype, torch.float32)
        lead = z.shape[0]
        rows = max(_CHUNK.get(z.device.type, _CHUNK["cuda"]) // self.d, _MIN_ROWS)
        self.step = lead if whole else max(1, min(lead, rows * lead // max(1, self.n)))
        self.one_chunk = self.step >= lead
        self._buffer: Tensor | None = None
        self._filled = False

    def sum(self) -> Tensor:
        """Column sums: (d,)."""
        return self.z.sum(tuple(range(self.z.dim() - 1)), dtype=self.wide)

    def centred(self, mean: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(which part of z's first dimension, its rows minus the mean: (m, d)), in one reused buffer."""
        for start in range(0, self.z.shape[0], self.step):
            part = slice(start, min(start + self.step, self.z.shape[0]))
            yield part, self._centre(self.z[part], mean)

    def _centre(self, z: Tensor, mean: Tensor) -> Tensor:
        if self._buffer is None:
            size = self.step * self.z[0].numel()
            self._buffer = torch.empty(size, dtype=self.dtype, device=z.device)
        m = z.numel() // self.d
        flat = self._buffer[: m * self.d]
        if z.dim() == 2:
            x = into = flat.view(m, self.d)
        else:
            into = flat.view(self.d, z.shape[0], z.shape[1]).permute(1, 2, 0)
            x = flat.view(self.d, m).T
        if not (self.one_chunk and self._filled):  # a single chunk is still there for the second product
            torch.sub(z, mean, out=into)  # in the type of the mean, the wide one; only the result may be rounded
            self._filled = True
        return x

    def variances(self, mean: Tensor) -> Tensor:
        """C_ii: (d,), for less than the whole of C."""
        total = torch.zeros_like(mean)
        for _, x in self.centred(mean):
            total += x.square().sum(0)
        return total / (self.n - 1)

    def gram(self, mean: Tensor) -> Tensor:
        """X'X: (d, d) in the wide type."""
        total = torch.zeros(self.d, self.d, dtype=self.wide, device=self.z.device)
        for _, x in self.centred(mean):
            _add_gram(total, x)
        _mirror(total)
        return total


def _local(
    rows: _Rows, result: Tensor, cfg: VCReg, scale: float | Tensor, observe: Callable[[Tensor], None] | None
) -> None:
    mean = rows.sum() / rows.n
    if rows.n < rows.d and rows.dtype == rows.wide:
        large = _may_be_clamped(rows, mean, cfg)
        if large is not None and rows.n + 2 * len(large) < rows.d:  # fewer operations than with a (d, d) product
            whole = rows if rows.one_chunk else _Rows(rows.z, rows.dtype, whole=True)
            return _narrow(whole, mean, large, result, cfg, scale, observe)
    c = rows.gram(mean).div_(rows.n - 1)
    if observe is not None:
        observe(c)
    _add_product(rows, mean, gradient_matrix(c, rows.n, cfg, scale), result)


def _synced(
    rows: _Rows, result: Tensor, cfg: VCReg, scale: float | Tensor, observe: Callable[[Tensor], None] | None
) -> None:
    """The same with n, mean and X'X summed over all processes. A rank with no rows takes part too."""
    sums = torch.cat([rows.sum(), torch.full((1,), rows.n, dtype=rows.wide, device=result.device)])
    dist.all_reduce(sums)
    n: Count = sums[-1].clamp(min=2)  # one row in all, or none, is its own mean: its gradient is 0, not 0 / 0
    mean = sums[:-1] / sums[-1].clamp(min=1)
    c = rows.gram(mean)
    dist.all_reduce(c)
    c /= n - 1
    if observe is not None:
        observe(c)
    _add_product(rows, mean, gradient_matrix(c, n, cfg, scale), result)


def _may_be_clamped(rows: _Rows, mean: Tensor, cfg: VCReg) -> Tensor | None:
    """Indices (k,) of the channels with C_ii > delta: of every clamped pair one is among them, since |C_ij| is at most
    sqrt(C_ii C_jj). On a GPU looking would wait for the device, so it is not known there: None."""
    if cfg.clamp is None:
        return torch.empty(0, dtype=torch.long, device=mean.device)
    # Nor is it of a fake tensor, which holds no values to look at.
    known = mean.device.type == "cpu" and type(mean) is Tensor
    return (rows.variances(mean) > cfg.clamp).nonzero()[:, 0] if known else None


def _narrow(
    rows: _Rows,
    mean: Tensor,
    large: Tensor,
    result: Tensor,
    cfg: VCReg,
    scale: float | Tensor,
    observe: Callable[[Tensor], None] | None,
) -> None:
    """Fewer rows than channels: X @ offdiag(C) = (X X') X / (n-1) - X diag(C), with an (n, n) product. What the clamp
    takes away is added in strips along the `large` channels: (k,)."""
    [(_, x)] = rows.centred(mean)
    n, d = x.shape
    if observe is not None:
        observe(x.T @ x / (n - 1))
    g = torch.zeros(n, n, dtype=x.dtype, device=x.device)
    _add_gram(g, x.T)
    _mirror(g)
    variances = rows.variances(mean)
    push = covariance_push(d, n, cfg) * scale
    g.mul_(push / (n - 1))
    diagonal = variance_pull(variances, n, cfg) * scale - push * variances
    # The product keeps the layout of the result: (n, d), or with the channels first (d, n).
    product = (g @ x).addcmul_(x, diagonal) if result.dim() == 2 else (x.T @ g).addcmul_(x.T, diagonal[:, None]).T
    if len(large):
        _clamp_strips(x, large, push, cfg, product)
    if result.dim() == 2:
        result.add_(product)
    else:
        b, s, _ = result.shape
        result.permute(2, 0, 1).add_(product.T.view(d, b, s))


def _clamp_strips(x: Tensor, large: Tensor, push: float | Tensor, cfg: VCReg, product: Tensor) -> None:
    """product: (n, d) += push * X @ (clamp(C) - C) off the diagonal, which is 0 outside the rows and the columns
    `large`.

    Of d = 3 with large = [0], a = clamp(C_01) - C_01 and b = clamp(C_02) - C_02:

        [0 a b]    the column is X @ [0 a b]', added to product[:, 0]
        [a 0 0]    the row is X_0 times [0 a b], added to what is left, and 0 within the column
        [b 0 0]
    """
    assert cfg.clamp is not None
    strip = x.T @ x[:, large] / (x.shape[0] - 1)  # C[:, large]: (d, k)
    change = (strip.clamp(-cfg.clamp, cfg.clamp) - strip) * push
    change[large, torch.arange(len(large))] = 0
    product[:, large] += x @ change
    change[large] = 0
    product += x[:, large] @ change.T


def _add_product(rows: _Rows, mean: Tensor, m: Tensor, result: Tensor) -> None:
    """result += X @ M. With the channels first that is result' += M X', because M is symmetric."""
    m = m.to(rows.dtype)
    for part, x in rows.centred(mean):
        into = result[part]
        same = into.dtype == x.dtype
        if into.dim() == 2:
            into.addmm_(x, m) if same else into.add_(_mm(x, m, rows.wide))
            continue
        b, s, d = into.shape
        if same and (into.is_cuda or s >= d):  # one product a sample, written where it belongs
            into.transpose(1, 2).baddbmm_(m.expand(b, d, d), x.T.view(d, b, s).transpose(0, 1))
        else:
            into.permute(2, 0, 1).add_(_mm(m, x.T, rows.wide).view(d, b, s))


def _mm(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    return a @ b if a.dtype == dtype else torch.mm(a, b, out_dtype=dtype)


def _product_dtype(features: Tensor, autocast: torch.dtype | None) -> torch.dtype:
    """Half types only where the hardware multiplies them with float32 sums, and never float16: M underflows in it."""
    if features.is_cuda and torch.bfloat16 in (features.dtype, autocast):
        return torch.bfloat16
    return torch.promote_types(features.dtype, torch.float32)


def _add_gram(total: Tensor, x: Tensor) -> None:
    """Upper triangle of total: (d, d) += x'x for x: (m, d). A CPU saves the arithmetic of the lower one, in strips."""
    d = x.shape[1]
    if x.is_cuda:
        if x.dtype == total.dtype:
            total.addmm_(x.T, x)
        else:
            total.add_(torch.mm(x.T, x, out_dtype=total.dtype))
        return
    width = _strip(d)
    for i in range(0, d, width):
        total[i : i + width, i:].addmm_(x[:, i : i + width].T, x[:, i:])


def _mirror(total: Tensor) -> None:
    """Copy what `_add_gram` left out from the upper to the lower triangle."""
    if total.is_cuda:
        return
    d = total.shape[0]
    width = _strip(d)
    for i in range(0, d, width):
        total[i + width :, i : i + width] = total[i : i + width, i + width :].T


def _strip(d: int) -> int:
    return 32 if d <= 192 else max(64, -(-d // 4))
