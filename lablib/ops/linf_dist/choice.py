"""Which implementation takes given tensors. Each has ``lp_forward``, ``lp_backward``, ``bounds_forward`` and
``bounds_backward`` in the form of operator.py, where ``index`` is empty but on a GPU.
"""

import functools
import importlib.util
import math
import warnings
from types import ModuleType

import torch
from torch import Tensor

from lablib.ops import native
from lablib.ops.linf_dist import reference


class Plain:
    """reference.py."""

    @staticmethod
    def lp_forward(x, weight, p, inputs, outputs, rows, keep):
        """As the operator lablib::lp_distance."""
        return reference.lp_forward(x, weight, p, inputs, outputs, rows), no_index(x)

    @staticmethod
    def lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
        """As the operator lablib::lp_distance_backward."""
        made = reference.lp_backward(grad, x, weight, y, p, inputs, outputs, rows)
        return tuple(t if need else t.new_empty(0) for t, need in zip(made, (need_x, need_weight)))

    @staticmethod
    def bounds_forward(lower, upper, weight, keep):
        """As the operator lablib::linf_distance_bounds."""
        return *reference.bounds_forward(lower, upper, weight), no_index(lower), no_index(lower)

    @staticmethod
    def bounds_backward(grad_least, grad_most, lower, upper, weight, least, most, *_):
        """As the operator lablib::linf_distance_bounds_backward."""
        return reference.bounds_backward(grad_least, grad_most, lower, upper, weight, least, most)


class OnGpu:
    """cuda.py (Triton)."""

    @staticmethod
    def lp_forward(x, weight, p, inputs, outputs, rows, keep):
        """As the operator lablib::lp_distance."""
        from lablib.ops.linf_dist import cuda

        if math.isinf(p):
            y, index = cuda.linf_forward(x, weight, inputs, outputs, rows, keep)
            return y, no_index(x) if index is None else index
        return cuda.lp_forward(x, weight, p, inputs, outputs, rows), no_index(x)

    @staticmethod
    def lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
        """As the operator lablib::lp_distance_backward."""
        from lablib.ops.linf_dist import cuda

        if math.isinf(p):
            made = cuda.linf_backward(grad, x, weight, index, inputs, outputs, rows)
        else:
            made = cuda.lp_backward(grad, x, weight, y, p, inputs, outputs, rows, need_x)
        return tuple(t if need else x.new_empty(0) for t, need in zip(made, (need_x, need_weight)))

    @staticmethod
    def bounds_forward(lower, upper, weight, keep):
        """As the operator lablib::linf_distance_bounds."""
        from lablib.ops.linf_dist import cuda

        least, most, *indices = cuda.linf_bounds_forward(lower, upper, weight, keep)
        return least, most, *(no_index(lower) if index is None else index for index in indices)

    @staticmethod
    def bounds_backward(grad_least, grad_most, lower, upper, weight, least, most, low_index, high_index):
        """As the operator lablib::linf_distance_bounds_backward."""
        from lablib.ops.linf_dist import cuda

        return cuda.linf_bounds_backward(grad_least, grad_most, lower, upper, weight, low_index, high_index)


def no_index(x: Tensor) -> Tensor:
    """Return the empty ``index`` of implementations that search again."""
    return x.new_empty(0, dtype=torch.int64)


def implementation(*tensors: Tensor) -> ModuleType | type:
    """Return who computes with these tensors: on the CPU by ``LABLIB_KERNELS``."""
    if tensors[0].device.type == "cpu":
        return _on_cpu(native.kernels())
    return _on_gpu(tensors) if tensors[0].is_cuda else Plain


@functools.cache
def _on_cpu(kernels: str) -> ModuleType | type:
    if kernels == "native":
        from lablib.ops.linf_dist import cpu

        return cpu
    if kernels == "numba":
        from lablib.ops.linf_dist import compiled

        return compiled
    return Plain


def _on_gpu(tensors: tuple[Tensor, ...]) -> type:
    from lablib.ops import gpu

    if gpu.usable(*tensors):
        return OnGpu
    _say_once()
    return Plain


@functools.cache
def _say_once() -> None:
    if importlib.util.find_spec("triton") is None:
        warnings.warn(
            "Triton is missing: distance layers run slowly on this GPU; install triton", stacklevel=2
        )
