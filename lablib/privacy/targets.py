"""What losses take: outputs (B, C) and targets, brought to one form or refused with one sentence.

Nothing is broadcast: a target of the wrong shape would otherwise give a (B, B) table of losses, each of which
depends on two samples.
"""

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float64)


def check_outputs(outputs: Tensor, loss: nn.Module, least: int = 1, exactly: int | None = None) -> Tensor:
    """Return ``outputs`` if they are (B, C) with C >= ``least`` (or ``exactly`` so many), float, and finite.

    Raises:
        ValueError: otherwise.
    """
    name = type(loss).__name__
    if not isinstance(outputs, Tensor) or outputs.dim() != 2 or outputs.shape[1] < least:
        raise ValueError(
            f"{name} takes outputs (B, C) with C >= {least}, got {_describe(outputs)}; a vector (B,) becomes "
            "(B, 1) by outputs[:, None]"
        )
    if exactly is not None and outputs.shape[1] != exactly:
        raise ValueError(
            f"{name} was made for {exactly} outputs, on which its constant rests, and got {outputs.shape[1]}; "
            f"make it with outputs={outputs.shape[1]}"
        )
    if outputs.dtype not in FLOATS:
        raise ValueError(f"{name} takes float32 or float64 outputs, got {outputs.dtype}; use outputs.float()")
    if not torch.isfinite(outputs).all():
        raise ValueError(
            f"the outputs (times the temperature, where there is one) that {name} got are not finite; "
            "look for the step that made them so, or lower the learning rate"
        )
    return outputs


def class_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return classes (B,) int64 for outputs (B, C); for C = 1 targets -1 and 1 (any dtype) become 0 and 1.

    Raises:
        ValueError: for another shape or dtype, or a class out of range.
    """
    samples, classes = outputs.shape
    _check_tensor(outputs, targets)
    if classes == 1:
        if targets.shape not in ((samples,), (samples, 1)) or not (targets.abs() == 1).all():
            raise ValueError(
                f"with one output the targets are -1 or 1, of shape ({samples},), got {_describe(targets)}; "
                "classes 0 and 1 become so by 2 * targets - 1"
            )
        return (targets.reshape(samples) > 0).long()
    if targets.shape != (samples,) or targets.dtype != torch.int64:
        raise ValueError(
            f"the targets are classes, int64 of shape ({samples},), got {_describe(targets)}; "
            "one-hot rows become so by targets.argmax(1)"
        )
    if not ((targets >= 0) & (targets < classes)).all():
        raise ValueError(
            f"the targets are classes from 0 to {classes - 1}, and some are not; label what is to be left out, "
            "or leave it out of the data set"
        )
    return targets


def value_targets(outputs: Tensor, targets: Tensor, classes: bool = False) -> Tensor:
    """Return one number per output, (B, C) in the dtype of ``outputs``; also from (B,) for C = 1.

    With ``classes``, int64 (B,) stands for one-hot rows where C >= 2.

    Raises:
        ValueError: for another shape, complex numbers, NaN or infinity.
    """
    samples, width = outputs.shape
    _check_tensor(outputs, targets)
    if classes and width > 1 and targets.shape == (samples,):
        return torch.nn.functional.one_hot(class_targets(outputs, targets), width).to(outputs.dtype)
    shapes = ((samples, width), (samples,)) if width == 1 else ((samples, width),)
    if targets.shape not in shapes or targets.is_complex():
        raise ValueError(
            f"the targets are one real number per output, of shape {tuple(outputs.shape)}, got {_describe(targets)}"
        )
    values = targets.reshape(samples, width).to(outputs.dtype)
    if not torch.isfinite(values).all():
        raise ValueError("some targets are NaN or infinite; leave these samples out of the data set")
    return values


def direction_targets(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return unit vectors (B, C): targets (B, C) divided by their l2 norms, or one-hot rows of classes (B,).

    Raises:
        ValueError: as :func:`value_targets`, and for a target that is 0.
    """
    values = value_targets(outputs, targets, classes=True)
    size = values.abs().amax(1, keepdim=True)  # divided out first, so that no square overflows or vanishes
    if not (size > 0).all():
        raise ValueError("a target direction is 0; leave these samples out of the data set")
    values = values / size
    return values / torch.linalg.vector_norm(values, dim=1, keepdim=True)


def _check_tensor(outputs: Tensor, targets: Tensor) -> None:
    if not isinstance(targets, Tensor) or targets.device != outputs.device:
        raise ValueError(
            f"the targets must be a tensor on the device of the outputs, {outputs.device}, got {_describe(targets)}"
        )


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{value.dtype} of shape {tuple(value.shape)} on {value.device}"
