"""Which implementation of reference.py's two functions takes given tensors."""

import functools
import importlib.util
import warnings
from types import ModuleType

from torch import Tensor

from lablib.ops import native
from lablib.ops.sortnet import reference
from lablib.ops.sortnet.reference import ABS, HIGH, PLACE, Gradients, Needs


class OnGpu:
    """The Triton kernels behind the two functions of reference.py."""

    @staticmethod
    def forward(
        x: Tensor, u: Tensor, center: Tensor, weight: Tensor, form: int, keep: bool
    ) -> tuple[Tensor, Tensor]:
        """As in reference.py."""
        from lablib.ops.sortnet import cuda

        if form == ABS:
            y, places = cuda.topk_forward(x, center, weight, keep)
        else:
            y, places = cuda.topk_bound_forward(x, u, center, weight, form == HIGH, keep)
        return y, places if keep else y.new_empty(0, dtype=PLACE)

    @staticmethod
    def backward(
        grad: Tensor,
        x: Tensor,
        u: Tensor,
        center: Tensor,
        weight: Tensor,
        places: Tensor,
        form: int,
        needs: Needs,
    ) -> Gradients:
        """As in reference.py."""
        from lablib.ops.sortnet import cuda

        if form != ABS:
            return reference.backward(grad, x, u, center, weight, places, form, needs)
        by_x, by_center, by_weight = cuda.topk_backward(grad, x, center, weight, places)
        made = (by_x, None, by_center, by_weight)
        return tuple(t if need else None for t, need in zip(made, needs))


def implementation(x: Tensor, center: Tensor, weight: Tensor) -> ModuleType | type[OnGpu]:
    """Return what has ``forward`` and ``backward`` for these: on the CPU by ``LABLIB_KERNELS``."""
    top = weight.shape[1]
    if x.is_cuda:
        return _on_gpu(x, center, weight) if top <= reference.ONE_BY_ONE else reference
    if x.device.type != "cpu" or top > reference.ONE_BY_ONE:
        return reference
    return _on_cpu(native.kernels())


@functools.cache
def _on_cpu(kernels: str) -> ModuleType:
    if kernels == "native":
        from lablib.ops.sortnet import cpu

        return cpu
    if kernels == "numba":
        from lablib.ops.sortnet import compiled

        return compiled
    return reference


def _on_gpu(x: Tensor, center: Tensor, weight: Tensor) -> ModuleType | type[OnGpu]:
    from lablib.ops import gpu

    if gpu.usable(x, center, weight):
        return OnGpu
    _say_once()
    return reference


@functools.cache
def _say_once() -> None:
    if importlib.util.find_spec("triton") is None:
        warnings.warn(
            "Triton is missing: SortNet layers run slowly on this GPU; install triton", stacklevel=2
        )
