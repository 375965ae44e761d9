"""How many threads the kernels compiled by numba use."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def as_torch() -> Iterator[None]:
    """Let numba use as many threads as torch may."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)
