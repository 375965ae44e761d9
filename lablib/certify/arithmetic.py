"""The model of floating-point arithmetic on which certificates stand, and rounding outward.

    fl(a op b) = (a op b)(1 + d) + e,   |d| <= u,   |e| <= tiny,        op one of + - * /

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., sections 2.2, 3.1 and 4.2.) u is 2^-24 in
float32 and 2^-53 in float64. ``tiny``, the smallest normal number, stands for underflow, gradual or flushed to
zero, of operands and results. A sum of n products in any order, with or without fused multiply-add, errs by at
most gamma_n sum |a_i b_i| + 2 n tiny with gamma_n = n u / (1 - n u). Comparisons, absolute values and sorts do
not round (but may flush operands).

The model excludes arithmetic of a lower precision than the tensors say (TF32, bfloat16 products) and fast
convolutions (Winograd, FFT): :func:`check_arithmetic` refuses to certify where torch is allowed to use them.
"""

import dataclasses

import torch
from torch import Tensor

# Assumed of tanh, sigmoid, sin and cos, in units in the last place; libraries state 1 to 2.
ULPS = 4


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """One floating-point format: ``unit`` roundoff u and ``tiny``, the smallest normal number."""

    unit: float
    tiny: float

    def relative(self, roundings: int) -> float:
        """Return k u / (1 - 2 k u): bounds the relative error of k roundings, of the exact or computed value.

        It is gamma_k / (1 - gamma_k) >= gamma_k.

        Raises:
            ValueError: for so many roundings that nothing can be said.
        """
        share = roundings * self.unit
        if share >= 0.25:
            raise ValueError(f"sums of {roundings} terms cannot be certified in this format; use float64")
        return share / (1.0 - 2.0 * share)


_FORMATS = {torch.float32: Arithmetic(2.0**-24, 2.0**-126), torch.float64: Arithmetic(2.0**-53, 2.0**-1022)}


def arithmetic(dtype: torch.dtype) -> Arithmetic:
    """Return the format of ``dtype``.

    Raises:
        ValueError: for anything but float32 and float64.
    """
    if dtype not in _FORMATS:
        raise ValueError(f"certificates are for float32 and float64, not {dtype}; convert the network")
    return _FORMATS[dtype]


def check_arithmetic(device: torch.device, multiplies: bool, convolves: bool) -> None:
    """Raise ValueError where torch may compute on ``device`` in an arithmetic outside the model.

    Args:
        device: where the network is.
        multiplies: whether it has matrix products.
        convolves: whether it has convolutions.
    """
    if torch.is_autocast_enabled(device.type):
        raise ValueError("autocast lowers the precision of layers; certify outside of it")
    if multiplies or convolves:  # some convolutions are computed as products
        _check_products(device)
    if convolves and device.type == "cuda" and torch.backends.cudnn.enabled:
        raise ValueError(
            "cuDNN may convolve in TF32 or by Winograd's method, which no bound here covers; certify on the CPU, "
            "or set torch.backends.cudnn.enabled = False"
        )
    mkldnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if convolves and device.type == "cpu" and not mkldnn and _nnpack_enabled():
        raise ValueError(
            "without oneDNN torch may convolve by NNPACK's Winograd method, which no bound here covers; set "
            "torch.backends.mkldnn.enabled = True, or certify under torch.backends.nnpack.flags(enabled=False)"
        )


def _check_products(device: torch.device) -> None:
    backends = torch.backends
    kinds = (backends.mkldnn, "conv"), (backends.mkldnn, "matmul")
    if device.type == "cuda":
        kinds = ((backends.cuda, "matmul"),)
    for backend, name in kinds:  # settings that older releases of torch do not have
        value = getattr(getattr(backend, name, None), "fp32_precision", "none")
        if value not in ("ieee", "none"):
            where = f"{backend.__name__}.{name}.fp32_precision"
            raise ValueError(
                f"float32 products may be computed in TF32 or bfloat16: {where} is {value!r}; set it to 'ieee' "
                "(or call torch.set_float32_matmul_precision('highest')) before certifying"
            )
    try:
        precise = torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # torch's way to say that its settings differ by backend
        precise = False
    if not precise:
        raise ValueError(
            "float32 products may be computed in TF32 or bfloat16; call "
            "torch.set_float32_matmul_precision('highest') before certifying"
        )


def _nnpack_enabled() -> bool:
    if not torch.backends.nnpack.is_available():
        return False
    # there is no public way to read the flag; where it is gone, assume the worst
    return getattr(torch._C, "_get_nnpack_enabled", lambda: True)()


def check_size(outputs: Tensor, local: Tensor, dtype: torch.dtype) -> None:
    """Raise ValueError where a value of a layer, or a term of its sums, may overflow: then nothing holds.

    ``local``, the rounding allowance, is at least u times the largest partial sum.
    """
    exponent = 120 if dtype == torch.float32 else 1000
    if outputs.numel() and not (
        bool(outputs.max() < 2.0**exponent) and bool((local * 2.0**-8).max() < 2.0 ** (exponent - 32))
    ):
        raise ValueError(
            f"values may overflow {dtype}, or are NaN; look for weights or inputs of such size before certifying"
        )


def outward(lower: Tensor, upper: Tensor, width: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return [lower - width, upper + width] in ``dtype``, rounded outward.

    Subtraction and conversion round to nearest, less than one step of ``dtype`` in all; the neighbour beyond
    is then on the safe side. Two ``tiny`` cover flushed subnormal numbers.
    """
    tiny = arithmetic(dtype).tiny
    # the factor covers the rounding of `width` itself, a few products and sums of positive numbers
    wide = width * (1.0 + 2.0**-16) + 2.0 * tiny
    infinity = torch.tensor(torch.inf, dtype=dtype, device=lower.device)
    return (
        torch.nextafter((lower - wide).to(dtype), -infinity),
        torch.nextafter((upper + wide).to(dtype), infinity),
    )


def round_down(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return float64 ``values`` >= 0 in ``dtype``, rounded to a number that is not larger (and not negative)."""
    near = values.to(dtype)
    below = torch.nextafter(near, torch.zeros_like(near))
    return torch.where(near.double() > values, below, near)
