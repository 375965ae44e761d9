"""Which implementation of reference.py's two functions takes given tensors."""

import functools
import importlib.util
import warnings
from types import ModuleType

from torch import Tensor

from lablib.ops import native
from lablib.ops.splines import reference

KNOTS = 2**24  # float32 counts up to that, and compiled code the coefficients of 128 channels in 32 bits


def implementation(x: Tensor, values: Tensor) -> ModuleType:
    """Return what has ``forward`` and ``backward`` for these: on the CPU by ``LABLIB_KERNELS``."""
    if values.shape[1] > KNOTS:
        return reference
    if x.is_cuda:
        return _on_gpu(x, values)
    if x.device.type != "cpu":
        return reference
    return _on_cpu(native.kernels())


@functools.cache
def _on_cpu(kernels: str) -> ModuleType:
    if kernels == "native":
        from lablib.ops.splines import cpu

        return cpu
    if kernels == "numba":
        from lablib.ops.splines import compiled

        return compiled
    return reference


def _on_gpu(x: Tensor, values: Tensor) -> ModuleType:
    from lablib.ops import gpu
    from lablib.ops.splines import cuda

    if gpu.usable(x, values):
        return cuda
    _say_once()
    return reference


@functools.cache
def _say_once() -> None:
    if importlib.util.find_spec("triton") is None:
        warnings.warn("Triton is missing: splines run slowly on this GPU; install triton", stacklevel=2)
