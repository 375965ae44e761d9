"""The sorted sum by the compiled C++ (native/sortnet.cpp, native/sortnet_backward.cpp): the functions of
reference.py, for contiguous float32 and float64 tensors on the CPU and K up to 16.
"""

import ctypes
import functools

import torch
from torch import Tensor

from lablib.ops import native
from lablib.ops.sortnet.reference import PLACE, Gradients, Needs

ONE_THREAD = 2**16  # up to so many numbers to look at, waking other threads costs more than it saves
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def forward(
    x: Tensor, u: Tensor, center: Tensor, weight: Tensor, form: int, keep: bool
) -> tuple[Tensor, Tensor]:
    """As in reference.py."""
    y = x.new_empty((x.shape[0], center.shape[0]))
    places = x.new_empty((*y.shape, weight.shape[1]) if keep else 0, dtype=PLACE)
    if y.numel():
        _call("forward", form, x, u, center, weight, y, places if keep else None)
    return y, places


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
    made = [
        torch.zeros(like.shape, dtype=like.dtype) if needed else None
        for like, needed in zip((x, u, center, weight), needs)
    ]
    if grad.numel():
        _call("backward", form, x, u, center, weight, grad, places, *made)
    return tuple(made)


def _call(name: str, form: int, x: Tensor, u: Tensor, center: Tensor, weight: Tensor, *others) -> None:
    """Call sortnet_``name`` on these tensors; None is a null pointer.

    Raises:
        MemoryError: without memory for each thread's lists.
    """
    (rows, inputs), (outs, top) = x.shape, weight.shape
    work = rows * inputs * outs
    threads = torch.get_num_threads() if work > ONE_THREAD else 1
    function = getattr(_library(), f"sortnet_{name}_{_SUFFIX[x.dtype]}")
    failed = function(
        form, x.data_ptr(), u.data_ptr(), center.data_ptr(), weight.data_ptr(), weight.stride(0),
        rows, inputs, outs, top, *(None if t is None else t.data_ptr() for t in others), threads,
    )  # fmt: skip
    if failed:
        raise MemoryError(f"no memory left to sort {inputs} inputs for each of {threads} threads")


@functools.cache
def _library() -> ctypes.CDLL:
    library = native.library("sortnet")
    sizes = [ctypes.c_int64] * 5
    for suffix in _SUFFIX.values():
        for name, pointers in (("forward", 2), ("backward", 6)):
            function = getattr(library, f"sortnet_{name}_{suffix}")
            function.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 4, *sizes]
            function.argtypes += [*[ctypes.c_void_p] * pointers, ctypes.c_int]
            function.restype = ctypes.c_int
    return library
