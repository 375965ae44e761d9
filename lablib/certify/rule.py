"""The rule of a layer for certification: see :mod:`lablib.certify.rules`, where each layer has one."""

from torch import Tensor, nn

from lablib.certify.arithmetic import Arithmetic

Box = tuple[Tensor, Tensor]


def run(layer: nn.Module, x: Tensor) -> Tensor:
    """Return the layer's output, without letting an in-place layer, or one inside it, overwrite ``x``."""
    inplace = any(getattr(part, "inplace", False) for part in layer.modules())
    return layer(x.clone() if inplace else x)


class Rule:
    """A layer that is monotone in each input, 1-Lipschitz in linf apart for each output, and moves values only."""

    def box(self, layer: nn.Module, lower: Tensor, upper: Tensor) -> Box:
        return run(layer, lower), run(layer, upper)

    def spread(self, layer: nn.Module, error: Tensor) -> Tensor:
        return error

    def local(self, layer: nn.Module, inputs: Tensor, outputs: Tensor, form: Arithmetic) -> Tensor | None:
        return None
