"""How many threads the kernels compiled by numba use."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def as_torch() -> Iterator[None]:
    """Let numba use as many threads as torch may, and torch as many as before."""
    import numba

    threads = torch.get_num_threads()
    before = numba.get_num_threads()
    if (
        torch.get_num_threads() != threads
    ):  # numba has just started, and set OpenMP's number, torch's, to its own
        torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
