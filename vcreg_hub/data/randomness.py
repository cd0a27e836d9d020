"""Random draws as functions of their subject, independent of earlier draws.

An image's augmentation in an epoch is a function of (seed, epoch, place in the epoch). So a repeated epoch is the same
epoch, whatever the number of worker processes, and whatever else of the run used random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*numbers: int) -> int:
    """63 well-mixed bits: neighbouring seeds or epochs give unrelated results.

    >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def torch_seed(*numbers: int) -> Iterator[None]:
    """Within, torch's CPU generator starts from the given numbers; afterwards it is as it was."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(derive_seed(*numbers))
    try:
        yield
    finally:
        torch.set_rng_state(before)


@contextmanager
def numpy_seed(*numbers: int) -> Iterator[None]:
    """Within, NumPy's global generator starts from the given numbers; afterwards it is as it was."""
    before = np.random.get_state()
    np.random.seed(derive_seed(*numbers) % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)
