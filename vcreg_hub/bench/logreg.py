"""Times the penalties of `logreg` fitted at once against scikit-learn's fits, one after another, on the same features.

The features are real images' pixels on their principal axes: no network and no download are needed, and their variances
run over many orders of magnitude, as those of a trained network do.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

from ..config import Data
from ..data.image.module import Images, load_images
from ..data.splits import stratified
from ..env import describe_env
from ..errors import UsageError
from ..evals.logistic_regression import LogisticFits, fit_logistic, penalty_grid
from ..files import JSON
from ..results.tables import Table


def logreg(
    data: str = "fashion_mnist",
    *,
    samples: int = 10_000,
    width: int = 512,
    count: int = 45,
    lowest: float = 1e-5,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    log: Callable[[str], None] = lambda line: None,
) -> JSON:
    """Seconds, objectives and test accuracies of both at every penalty, JSON-ready; see `render`.

    samples: training images at most, in the classes' shares. width: principal axes kept, at most. tolerance,
    max_iterations: scikit-learn's own settings; ours are those of `logreg`. Ours is timed before and after
    scikit-learn's, so that a machine that others use shows.
    Errors: UsageError for a data set of streamed images.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    (rows, labels), (shown, truth) = _features(data, samples, width)
    penalties = penalty_grid(lowest, 1e5, count)
    features, wanted = torch.from_numpy(rows), torch.from_numpy(labels)
    log(f"{data}: {rows.shape[0]} x {rows.shape[1]}, {len(penalties)} penalties, {torch.get_num_threads()} threads")

    def ours() -> tuple[LogisticFits, JSON]:
        clocks = _Clocks()
        fits = fit_logistic(features, wanted, penalties)
        log(f"at once: {clocks.seconds['wall']:.1f} s")
        return fits, clocks.seconds

    fits, first = ours()
    hits = (fits.predict(torch.from_numpy(shown)) == torch.from_numpy(truth)).double().mean(1) * 100
    found: list[JSON] = []
    clocks = _Clocks()
    for i, penalty in enumerate(penalties):
        model = LogisticRegression(C=1 / penalty, tol=tolerance, max_iter=max_iterations)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(rows, labels)
        seconds = time.perf_counter() - began
        theirs = _objective(model.coef_, model.intercept_, rows, labels, penalty)
        found.append({
            "penalty": penalty,
            "objective": {"ours": float(fits.objective[i]), "sklearn": theirs},
            "iterations": {"ours": int(fits.iterations[i]), "sklearn": int(model.n_iter_.max())},
            "converged": {"ours": bool(fits.converged[i]), "sklearn": bool(model.n_iter_.max() < max_iterations)},
            "test_top1": {"ours": float(hits[i]), "sklearn": 100 * float(model.score(shown, truth))},
            "sklearn_seconds": round(seconds, 3),
        })  # fmt: skip
        log(f"{penalty:.3g}: scikit-learn {seconds:.1f} s, {found[-1]['iterations']['sklearn']} iterations")
    sklearn = clocks.seconds
    _, second = ours()
    return {
        "format": 1,
        "env": describe_env(),
        "data": data,
        "samples": len(labels),
        "width": rows.shape[1],
        "classes": int(labels.max()) + 1,
        "tested": len(truth),
        "tolerance": {"sklearn": tolerance},
        "max_iterations": max_iterations,
        "seconds": {"ours": [first, second], "sklearn": sklearn},
        "path": found,
    }


class _Clocks:
    """Seconds since it was made: by the wall, and of this process's processors."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> JSON:
        return {"wall": round(time.perf_counter() - self.wall, 3), "cpu": round(time.process_time() - self.cpu, 3)}


def _features(data: str, samples: int, width: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(features (n, d) float64, labels (n,)) of training and test images, on the training images' principal axes."""
    images = load_images(Data(data))
    if not isinstance(images.train, Images) or not isinstance(images.test, Images):
        raise UsageError(f"{data} is streamed: bench logreg needs images in memory")
    kept = stratified(images.train.labels, samples, seed=0)
    train, test = (
        np.stack([np.asarray(part[int(i)][0], dtype=np.float64).ravel() / 255 for i in order])
        for part, order in ((images.train, kept), (images.test, range(len(images.test))))
    )
    mean = train.mean(0)
    _, axes = np.linalg.eigh(np.cov(train.T))
    axes = axes[:, ::-1][:, :width]
    found = [(part - mean) @ axes for part in (train, test)]
    return (found[0], images.train.labels[kept]), (found[1], images.test.labels)


def _objective(weights: np.ndarray, bias: np.ndarray, rows: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    """lambda / 2 |W|^2 plus the summed cross-entropy, written down."""
    scores = torch.from_numpy(rows @ weights.T + bias)
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels), reduction="sum")
    return float(loss) + penalty / 2 * float((weights**2).sum())


def render(result: JSON) -> str:
    """The result as a text table (GitHub Markdown), and what it says in words."""
    env, seconds, path = result["env"], result["seconds"], result["path"]
    ours = [one["wall"] for one in seconds["ours"]]
    rows = [
        ["all penalties at once, first", f"{ours[0]:.1f}", f"{seconds['ours'][0]['cpu']:.1f}", _times(seconds, 0)],
        ["all penalties at once, again", f"{ours[1]:.1f}", f"{seconds['ours'][1]['cpu']:.1f}", _times(seconds, 1)],
        ["scikit-learn, one by one", f"{seconds['sklearn']['wall']:.1f}", f"{seconds['sklearn']['cpu']:.1f}", "1.0"],
    ]
    converged = [one for one in path if one["converged"]["sklearn"]]
    gaps = [one["objective"]["ours"] / one["objective"]["sklearn"] - 1 for one in converged]
    apart = max(abs(one["test_top1"]["ours"] - one["test_top1"]["sklearn"]) for one in converged)
    table = Table.of(["fits", "wall, s", "CPU, s", "times as fast"], rows).markdown(padded=True)
    return "\n".join([
        f"{len(path)} penalties, {result['data']}, {result['samples']:,} x {result['width']}, {result['classes']} "
        f"classes, on {env['device']}, {env['threads']} threads, torch {env['packages'].get('torch')}.",
        "",
        table,
        "",
        f"scikit-learn (tolerance {result['tolerance']['sklearn']:g}) converged within {result['max_iterations']} "
        f"iterations at {len(converged)} of {len(path)} penalties. There our objective is between {min(gaps):+.1e} and "
        f"{max(gaps):+.1e} of its own, relatively, and the test accuracies differ by {apart:.2f} points at most. "
        f"Ours converged at {sum(one['converged']['ours'] for one in path)} of {len(path)}.",
    ]) + "\n"  # fmt: skip


def _times(seconds: JSON, run: int) -> str:
    return f"{seconds['sklearn']['wall'] / seconds['ours'][run]['wall']:.1f}"
