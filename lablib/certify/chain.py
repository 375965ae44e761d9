"""Which networks certificates are for: chains of known layers in evaluation mode, and inputs that fit them."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lablib.certify.arithmetic import arithmetic, check_arithmetic
from lablib.certify.rules import CONVOLUTIONS, LINEAR, RULES
from lablib.certify.skips import MONOTONE, Skip, as_chain
from lablib.layers.base import layer_name
from lablib.layers.intact import check_intact, is_chain, plain_class
from lablib.layers.sequential import KNOWN, ConvexResidual, guarantee


def known_layers(network: nn.Module) -> list[nn.Module]:
    """Return the layers of ``network``, first to last; a :class:`ConvexResidual` counts as one.

    A MonotoneNetwork, also a frozen one, or MonotonicWrapper becomes a :class:`~lablib.certify.skips.Skip` and its
    head.

    Raises:
        ValueError: for a layer that is not covered (the message names it), hooks, training mode, or weights
            that are not all in float32 or all in float64.
    """
    check_intact(network)
    if any(part.training for part in network.modules()):
        raise ValueError(
            "the network, or a part of it, is in training mode; call eval() before certifying it"
        )
    _check_copies(network)
    layers = _flatten(network)
    _check_dtype(network)
    return layers


def _check_copies(network: nn.Module) -> None:
    """Refuse torch's copies of a parametrized module: its cached(), used here, takes them for the original."""
    kinds = [type(part) for part in network.modules() if parametrize.is_parametrized(part)]
    if len(set(kinds)) < len(kinds):
        raise ValueError(
            "two parts are deep copies of one parametrized module, and torch mixes up their weights while it caches "
            "them; make each anew and load its state"
        )


def _flatten(module: nn.Module) -> list[nn.Module]:
    if is_chain(module):
        return [layer for part in module for layer in _flatten(part)]
    kind = plain_class(module)
    if kind is ConvexResidual:
        _flatten(module.branch)
    elif kind in MONOTONE:
        return as_chain(module, _flatten(module.network))
    elif kind is Skip:
        _flatten(module.inner)
    elif kind not in RULES:
        names = sorted({known.__name__ for known in RULES.keys() | MONOTONE} | {"ConvexResidual"})
        raise ValueError(
            f"{layer_name(module)} is not covered by the bounds here; they know exactly {', '.join(names)}, "
            "and chains of them (a model's own network() gives such a chain)"
        )
    elif kind is nn.MaxPool2d and module.return_indices:
        raise ValueError("nn.MaxPool2d with return_indices=True has two outputs; leave it False")
    elif kind in KNOWN:
        guarantee(module)  # refuses options under which samples mix
    return [module]


def _check_dtype(network: nn.Module) -> None:
    kinds = {t.dtype for t in (*network.parameters(), *network.buffers()) if t.is_floating_point()}
    if len(kinds) > 1:
        raise ValueError(
            f"the weights are in {', '.join(sorted(map(str, kinds)))}; convert them to one of these"
        )
    for kind in kinds:
        arithmetic(kind)


def in_float64(network: nn.Module) -> nn.Module:
    """Return a copy that computes in float64 with the very weights ``network`` computes with now.

    Constraints are left out: computed anew in float64 they would give other weights.
    """
    if any(plain_class(part) in MONOTONE for part in network.modules()):
        network = nn.Sequential(*_flatten(network))  # with the residual as it was rounded
    copied = copy.deepcopy(network)
    for part in copied.modules():
        for name in list(getattr(part, "parametrizations", ())):
            value = nn.Parameter(getattr(part, name).detach().clone())
            # not torch's own removal, which changes the class, and with it the original network
            part.parametrizations[name] = parametrize.ParametrizationList([nn.Identity()], value, unsafe=True)
    return copied.double().eval()


def check_inputs(network: nn.Module, *batches: Tensor) -> None:
    """Check inputs (B, ...) of one shape against the network's weights.

    Raises:
        ValueError: for no features, shapes that differ, NaN or infinity, or another dtype than the weights'.
    """
    first = batches[0]
    wanted = next(
        (p.dtype for p in (*network.parameters(), *network.buffers()) if p.is_floating_point()), None
    )
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.dim() < 2 or batch.shape != first.shape:
            shapes = [tuple(getattr(b, "shape", ())) for b in batches]
            raise ValueError(f"inputs are tensors (B, ...) of one shape with a batch axis, got {shapes}")
        arithmetic(batch.dtype)
        if batch.dtype != (wanted or first.dtype):
            raise ValueError(
                f"the network is in {wanted or first.dtype}, the inputs in {batch.dtype}; convert them"
            )
        if not batch.isfinite().all():
            raise ValueError("inputs contain NaN or infinity; look for the step that made them")
    kinds = {plain_class(part) for part in network.modules()}
    check_arithmetic(first.device, bool(kinds & LINEAR), bool(kinds & CONVOLUTIONS))


def check_logits(outputs: Tensor) -> Tensor:
    """Return ``outputs`` if they are logits (B, C).

    Raises:
        ValueError: for another number of axes.
    """
    if outputs.dim() != 2:
        raise ValueError(f"logits (B, C) expected, got shape {tuple(outputs.shape)}; add nn.Flatten()")
    return outputs


def check_labels(labels: Tensor, samples: int, classes: int | None = None) -> Tensor:
    """Return integer ``labels`` (B,) as int64 on the CPU or where they are.

    Raises:
        ValueError: for another shape, other numbers, or classes out of range.
    """
    y = torch.as_tensor(labels)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool or y.shape != (samples,):
        raise ValueError(f"integer labels ({samples},) expected, got {tuple(y.shape)} of {y.dtype}")
    if classes is not None:
        if classes < 2:
            raise ValueError(f"a classifier has at least two outputs, got {classes}")
        if samples and not (int(y.min()) >= 0 and int(y.max()) < classes):
            raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(y.min())}..{int(y.max())}")
    return y.long()
