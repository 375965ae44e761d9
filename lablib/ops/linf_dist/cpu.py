"""The distances by the compiled C++ (native/linf_dist*.cpp), for contiguous float32 and float64 tensors on the CPU.

Numbers that are not finite go to reference.py: the C++ is compiled for finite ones and says when it meets others.
"""

import ctypes
import functools
import math

import torch
from torch import Tensor

from lablib.ops import native
from lablib.ops.linf_dist import reference
from lablib.ops.linf_dist.choice import Plain, no_index

ONE_THREAD = 2**18  # up to so many differences, waking other threads costs more than it saves
DONE, NOT_FINITE, BAD_MASK, NO_MEMORY = range(4)
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def lp_forward(x, weight, p, inputs, outputs, rows, keep):
    """As the operator lablib::lp_distance."""
    y = x.new_empty((x.shape[0], weight.shape[0] if outputs is None else outputs.shape[1]))
    index = no_index(x)
    if y.numel() == 0:
        return y, index
    name = "linf_forward" if math.isinf(p) else "lp_forward"
    if _call(name, x, weight, p, inputs, outputs, rows, y):
        return y, index
    return reference.lp_forward(x, weight, p, inputs, outputs, rows), index


def lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight):
    """As the operator lablib::lp_distance_backward."""
    to_x = torch.zeros_like(x) if need_x else x.new_empty(0)
    to_weight = torch.zeros_like(weight) if need_weight else weight.new_empty(0)
    name = "linf_backward" if math.isinf(p) else "lp_backward"
    wanted = (to_x if need_x else None, to_weight if need_weight else None)
    if y.numel() == 0 or _call(name, x, weight, p, inputs, outputs, rows, y, grad, *wanted):
        return to_x, to_weight
    return Plain.lp_backward(grad, x, weight, y, index, p, inputs, outputs, rows, need_x, need_weight)


def bounds_forward(lower, upper, weight, keep):
    """As the operator lablib::linf_distance_bounds."""
    least, most = (lower.new_empty((lower.shape[0], weight.shape[0])) for _ in range(2))
    if least.numel() and not _call("linf_range", lower, weight, 0.0, None, None, 1, upper, least, most):
        least, most = reference.bounds_forward(lower, upper, weight)
    return least, most, no_index(lower), no_index(lower)


def bounds_backward(grad_least, grad_most, lower, upper, weight, least, most, *indices):
    """As the operator lablib::linf_distance_bounds_backward."""
    made = tuple(torch.zeros_like(t) for t in (lower, upper, weight))
    if not least.numel() or _call(
        "linf_range_backward",
        lower,
        weight,
        0.0,
        None,
        None,
        1,
        upper,
        least,
        most,
        grad_least,
        grad_most,
        *made,
    ):
        return made
    return reference.bounds_backward(grad_least, grad_most, lower, upper, weight, least, most)


def _call(
    name: str,
    x: Tensor,
    weight: Tensor,
    p: float,
    inputs: Tensor | None,
    outputs: Tensor | None,
    rows: int,
    *others: Tensor | None,
) -> bool:
    """Call the C++ function; return whether it could, or else the numbers are not finite.

    Raises:
        ValueError: if a mask is not sorted, or names what is not there.
        MemoryError: without memory for a copy of a sub-batch per thread.
    """
    kept, chosen = x.shape[1], weight.shape[0]
    if inputs is not None:
        inputs = inputs.contiguous()
    if outputs is not None:
        outputs = outputs.contiguous()
        chosen = outputs.shape[1]
    threads = torch.get_num_threads() if x.shape[0] * kept * chosen > ONE_THREAD else 1
    done = _function(name, x.dtype, len(others))(
        x.data_ptr(),
        weight.data_ptr(),
        None if inputs is None else inputs.data_ptr(),
        None if outputs is None else outputs.data_ptr(),
        rows, x.shape[0], kept, chosen, weight.shape[1], weight.shape[0], p, threads,
        *(None if t is None else t.data_ptr() for t in others),
    )  # fmt: skip
    if done == BAD_MASK:
        raise ValueError(
            "each row of inputs and outputs must rise and stay below the number of inputs (outputs)"
        )
    if done == NO_MEMORY:
        raise MemoryError(f"no memory left to compute distances of {tuple(x.shape)} to {tuple(weight.shape)}")
    return done == DONE


@functools.cache
def _function(name: str, dtype: torch.dtype, others: int):
    function = getattr(native.library("linf_dist"), f"{name}_{_SUFFIX[dtype]}")
    pointer = ctypes.c_void_p
    function.argtypes = [*[pointer] * 4, *[ctypes.c_int64] * 6, ctypes.c_double, ctypes.c_int]
    function.argtypes += [pointer] * others
    function.restype = ctypes.c_int
    return function
