"""Measures the peak memory of the tensors of a running function."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Peak allocation of `function` on `device`, beyond the memory in use before.

    On a GPU the caching allocator's own count; on a CPU the allocations that torch's profiler sees, which leaves out
    the scratch space inside of matrix and convolution libraries.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # its notices would land in the middle of a table
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak
