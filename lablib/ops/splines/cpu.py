"""Linear splines by the compiled C++ (native/spline.cpp): the functions of reference.py on the CPU."""

import ctypes
import functools

import torch
from torch import Tensor

from lablib.ops import native
from lablib.ops.splines.reference import Gradients, Needs

ONE_THREAD = 2**14  # up to so many numbers, waking other threads costs more than it saves
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
_SHAPE = ctypes.c_int64 * 4  # made anew at each use, the type costs more than a small call


def forward(x: Tensor, values: Tensor, scale: Tensor | None, reach: float) -> Tensor:
    """As in reference.py."""
    wide = x.to(values.dtype)
    y = torch.empty_like(wide)
    _call("forward", wide, values, scale, reach, y)
    return y.to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, needs: Needs
) -> Gradients:
    """As in reference.py."""
    wide = x.to(values.dtype)
    made = [torch.empty_like(t) if need else None for t, need in zip((wide, values, scale), needs)]
    _call("backward", wide, values, scale, reach, grad.to(values.dtype), *made)
    return made[0] if made[0] is None else made[0].to(x.dtype), made[1], made[2]


def _call(
    name: str, x: Tensor, values: Tensor, scale: Tensor | None, reach: float, *others: Tensor | None
) -> None:
    """Call spline_``name`` on these tensors; None is a null pointer.

    Raises:
        MemoryError: without memory for the sums of each thread.
    """
    threads = torch.get_num_threads() if x.numel() > ONE_THREAD else 1
    shape = _SHAPE(*x.shape, values.shape[1])
    function = getattr(_library(), f"spline_{name}_{_SUFFIX[x.dtype]}")
    given, made = (
        [None if t is None else t.data_ptr() for t in side] for side in ((x, values, scale), others)
    )
    if function(*given, shape, reach, *made, threads):
        raise MemoryError(f"no memory left to add up the gradients of {tuple(values.shape)} coefficients")


@functools.cache
def _library() -> ctypes.CDLL:
    library, pointer = native.library("spline"), ctypes.c_void_p
    for suffix in _SUFFIX.values():
        for name, pointers in (("forward", 1), ("backward", 4)):
            function = getattr(library, f"spline_{name}_{suffix}")
            function.argtypes = [*[pointer] * 4, ctypes.c_double, *[pointer] * pointers, ctypes.c_int]
            function.restype = ctypes.c_int
    return library
