"""L2-regularised multinomial logistic regression at many strengths at once, by one batched L-BFGS.

For each penalty lambda the objective is lambda / 2 * |W|^2 + the SUM of the cross-entropies; the bias is free. All
penalties take their steps side by side, so that one product of the features with the weights of all of them,
(n, d) @ (d, penalties * classes), serves every one:

    penalty   evaluation 1   2      3      4
    1e-5      step           step   halve  step      each accepts its step or halves it by itself,
    1         step           step   done             and leaves when it has converged
    1e+5      done

Two things make it fast. The features are centred and turned onto their principal axes, which changes no objective (the
penalty is blind to rotation, the bias takes the mean up), and there a diagonal preconditioner, the curvature at W = 0
plus lambda, is nearly the Hessian. And a product with hundreds of columns runs at the processor's speed, where one with
ten waits for memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError

# Pairs of (step, change of gradient) that L-BFGS remembers.
_MEMORY = 10
# Rounds after which the diagonal that L-BFGS starts from is taken anew.
_REFRESH = 10
# Elements of the (rows, penalties, classes) scores that are made at a time.
_CHUNK = 2**24
# Armijo's constant, and how often a step is halved before its penalty counts as converged: then it is at the precision
# of the arithmetic.
_DECREASE, _HALVINGS = 1e-4, 40


@dataclass(frozen=True)
class LogisticFits:
    """The outcome of each penalty, in the order given.

    weights: (s, d, c). bias: (s, c). objective: (s,) float64. iterations: (s,), accepted steps. converged: (s,).
    """

    penalties: tuple[float, ...]
    weights: Tensor
    bias: Tensor
    objective: Tensor
    iterations: Tensor
    converged: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Class ids (s, n) for features (n, d)."""
        rows = features.to(self.weights)
        step = max(1, _CHUNK // self.bias.numel())
        parts = [
            (torch.einsum("nd,sdc->snc", part, self.weights) + self.bias[:, None]).argmax(2)
            for part in rows.split(step)
        ]
        return torch.cat(parts, 1)


def penalty_grid(low: float = 1e-5, high: float = 1e5, count: int = 45) -> tuple[float, ...]:
    """`count` penalties evenly spaced in their logarithm.

    The paper's C.1 has 45 from 1e-5 to 1e5; Kornblith et al. start at 1e-6.

    >>> penalty_grid(0.01, 100, 5)
    (0.01, 0.1, 1.0, 10.0, 100.0)
    """
    if not (0 < low <= high) or count < 1:
        raise DataError(f"penalties run from a number above 0 upwards, got {count} from {low} to {high}")
    exponents = torch.linspace(math.log10(low), math.log10(high), count, dtype=torch.float64)
    return tuple(float(f"{10**value:.12g}") for value in exponents.tolist())


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    penalties: Sequence[float],
    *,
    classes: int | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    dtype: torch.dtype = torch.float64,
) -> LogisticFits:
    """Fit every penalty on features (n, d) and labels (n,), class ids from 0, on the features' device.

    classes: None for the largest label plus one. tolerance: a fit has converged when its last step lowered
    the objective, and its next one promises to lower it, by less than that share. dtype: of the arithmetic.
    Errors: DataError for features that are not finite, labels out of range, fewer than two classes, or penalties that
    are not above 0.
    """
    _check(features, labels, penalties)
    found = int(labels.max()) + 1
    classes = found if classes is None else classes
    if found > classes:
        raise DataError(f"labels run to {found - 1}, but there are {classes} classes")
    problem = _Problem(features.to(dtype), labels.to(features.device), classes)
    lambdas = torch.tensor(list(penalties), dtype=dtype, device=features.device)
    theta, objective, iterations, converged = _minimise(problem, lambdas, tolerance, max_iterations)
    weights, bias = problem.original(theta)
    return LogisticFits(tuple(penalties), weights, bias, objective.double().cpu(), iterations.cpu(), converged.cpu())


class _Problem:
    """The rotated features, and the value and gradient of the summed cross-entropy.

    Parameters of s penalties are (s, k + 1, c): the weights on k principal axes, then the bias.
    """

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self.mean = features.mean(0)
        centred = features - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        largest = values.clamp(min=0).max()
        # Along an axis without variance the best weight is 0, whatever the penalty.
        kept = values > largest * len(values) * torch.finfo(features.dtype).eps
        self.axes = vectors[:, kept]
        ones = torch.ones(len(features), 1, dtype=features.dtype, device=features.device)
        self.rows = torch.cat([centred @ self.axes, ones], 1)
        self.labels, self.classes = labels, classes

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy (s,) and its gradient, like theta (s, k + 1, c)."""
        s, k, c = theta.shape
        flat = theta.permute(1, 0, 2).reshape(k, s * c)
        total, gradient = theta.new_zeros(s), torch.zeros_like(flat)
        step = max(1, _CHUNK // (s * c))
        for rows, labels in zip(self.rows.split(step), self.labels.split(step), strict=True):
            scores = (rows @ flat).view(-1, s, c)
            at = labels[:, None, None].expand(-1, s, 1)
            own = scores.gather(2, at)
            scores.sub_(own)  # so that a loss near 0 is not a difference of large numbers
            top = scores.amax(2, keepdim=True)
            scores.sub_(top).exp_()
            sums = scores.sum(2, keepdim=True)
            total += (sums.log() + top).sum((0, 2))
            scores.div_(sums)
            scores.scatter_add_(2, at, scores.new_full((1, 1, 1), -1.0).expand_as(at))
            gradient.addmm_(rows.T, scores.view(len(rows), s * c))
        return total, gradient.view(k, s, c).permute(1, 0, 2)

    def curvature(self, theta: Tensor) -> Tensor:
        """The diagonal of the cross-entropy's Hessian at theta, like theta: sum over rows of x^2 p (1 - p)."""
        s, k, c = theta.shape
        flat = theta.permute(1, 0, 2).reshape(k, s * c)
        found = torch.zeros_like(flat)
        for rows in self.rows.split(max(1, _CHUNK // (s * c))):
            p = (rows @ flat).view(-1, s, c).softmax(2).view(len(rows), s * c)
            found.addmm_(rows.square().T, p * (1 - p))
        return found.view(k, s, c).permute(1, 0, 2)

    def original(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (s, d, c) and bias (s, c) for the features as they were given."""
        weights = torch.einsum("dk,skc->sdc", self.axes, theta[:, :-1])
        return weights, theta[:, -1] - torch.einsum("d,sdc->sc", self.mean, weights)


def _minimise(
    problem: _Problem, lambdas: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parameters (s, k + 1, c) in the rotated frame, objective (s,), accepted steps (s,) and whether they converged."""
    s, k, c = len(lambdas), problem.rows.shape[1], problem.classes
    penalty = lambdas[:, None, None].repeat(1, k, 1)
    penalty[:, -1] = 0  # the bias

    def evaluate(theta: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = problem.value_and_gradient(theta)
        weighted = penalty[at] * theta
        return loss + 0.5 * (weighted * theta).sum((1, 2)), gradient + weighted

    theta = lambdas.new_zeros(s, k, c)
    everything = torch.arange(s, device=lambdas.device)
    value, gradient = evaluate(theta, everything)
    memory = _Memory(s, k * c, lambdas)
    inverse = 1 / (problem.curvature(theta) + penalty)
    direction = -inverse * gradient
    length = torch.ones_like(value)
    steps, halvings = torch.zeros_like(everything), torch.zeros_like(everything)
    converged = torch.zeros(s, dtype=torch.bool, device=lambdas.device)
    active = everything
    rounds = 0
    while len(active):
        slope = (gradient[active] * direction[active]).sum((1, 2))
        trial = theta[active] + length[active, None, None] * direction[active]
        new_value, new_gradient = evaluate(trial, active)
        accepted = new_value <= value[active] + _DECREASE * length[active] * slope
        took, held = active[accepted], active[~accepted]
        memory.add(took, trial[accepted] - theta[took], new_gradient[accepted] - gradient[took], inverse[took])
        gained = torch.full_like(new_value, torch.inf)
        gained[accepted] = value[took] - new_value[accepted]
        theta[took], value[took], gradient[took] = trial[accepted], new_value[accepted], new_gradient[accepted]
        direction[took] = -memory.times_inverse_hessian(took, gradient[took], inverse[took])
        length[took], steps[took], halvings[took] = 1.0, steps[took] + 1, 0
        length[held] *= 0.5
        halvings[held] += 1
        promised = -0.5 * (gradient[active] * direction[active]).sum((1, 2))
        small = torch.maximum(promised, gained) <= tolerance * value[active]
        ended = (accepted & small) | (halvings[active] >= _HALVINGS)
        converged[active[ended]] = True
        active = active[~ended & (steps[active] < max_iterations)]
        rounds += 1
        if rounds % _REFRESH == 0 and len(active):
            inverse[active] = 1 / (problem.curvature(theta[active]) + penalty[active])
    return theta, value, steps, converged


class _Memory:
    """L-BFGS's last pairs of each penalty, and the product with the inverse Hessian that they stand for."""

    def __init__(self, s: int, size: int, like: Tensor) -> None:
        self.moves, self.changes = like.new_zeros(_MEMORY, s, size), like.new_zeros(_MEMORY, s, size)
        self.rho = like.new_zeros(_MEMORY, s)  # 0 where there is no pair yet, which leaves it out of every sum
        self.gamma = like.new_ones(s)
        self.count = torch.zeros(s, dtype=torch.long, device=like.device)

    def add(self, at: Tensor, move: Tensor, change: Tensor, inverse: Tensor) -> None:
        """Keep a pair for the penalties `at`: (a, k, c) each. One without curvature is passed over."""
        move, change, inverse = move.flatten(1), change.flatten(1), inverse.flatten(1)
        curvature = (move * change).sum(1)
        length = (change * inverse * change).sum(1)
        good = curvature > torch.finfo(move.dtype).eps * length
        at, move, change, curvature, length = at[good], move[good], change[good], curvature[good], length[good]
        slot = self.count[at] % _MEMORY
        self.moves[slot, at], self.changes[slot, at] = move, change
        self.rho[slot, at] = 1 / curvature
        self.gamma[at] = curvature / length
        self.count[at] += 1

    def times_inverse_hessian(self, at: Tensor, gradient: Tensor, inverse: Tensor) -> Tensor:
        """The two-loop recursion for the penalties `at`, begun with the diagonal `inverse`; all (a, k, c)."""
        q = gradient.flatten(1).clone()
        ages = [(self.count[at] - 1 - age) % _MEMORY for age in range(min(_MEMORY, int(self.count.max())))]
        shares = []
        for slot in ages:
            share = self.rho[slot, at] * (self.moves[slot, at] * q).sum(1)
            q -= share[:, None] * self.changes[slot, at]
            shares.append(share)
        q *= self.gamma[at][:, None] * inverse.flatten(1)
        for slot, share in zip(reversed(ages), reversed(shares), strict=True):
            other = self.rho[slot, at] * (self.changes[slot, at] * q).sum(1)
            q += (share - other)[:, None] * self.moves[slot, at]
        return q.view_as(gradient)


def _check(features: Tensor, labels: Tensor, penalties: Sequence[float]) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise DataError(
            f"expected features (n, d) and labels (n,), got {tuple(features.shape)} and {tuple(labels.shape)}"
        )
    if not torch.isfinite(features).all():
        raise DataError("the features hold values that are not finite: has the training diverged?")
    if int(labels.min()) < 0 or len(labels.unique()) < 2:
        raise DataError("a linear probe needs labels from 0 on, of two classes or more")
    if not penalties or min(penalties) <= 0:
        raise DataError(f"penalties are numbers above 0, got {list(penalties)}")
