"""Networks that differ in one respect after the other, each of which makes the gradient bound tighter.

The gradient of a dense layer for one sample has the norm ||g|| ||x||, its bound is G X. What is lost lies in the
features, ||x|| / X, and in the cotangents, ||g|| / G:

- ReLU sets features and cotangents to zero; GroupSort with orthonormal matrices keeps both norms;
- a matrix that narrows loses features, one that widens loses cotangents, a square one loses neither. So: square
  ones, wider at most in the first layer (nothing below it needs cotangents), narrower only in the last (nothing
  above it needs features);
- X is what inputs are clipped to. Clipping to what most samples reach makes ||x|| = X at the first layer; clipping
  again behind a layer that loses features lowers X there;
- G starts at the Lipschitz constant of the loss, sqrt(2), which a fitted sample is far from. Clipping the cotangents
  of the logits at C lowers G to C, which many samples reach;
- windows that overlap count each pixel several times in the worst case, sqrt(k_h k_w); patches count it once;
- a kernel is shared: its gradient is a sum over positions, which agree only in the worst case. Fewer, larger patches
  lose less.

All radii are public: chosen from what an image can be, not from the training set.
"""

import dataclasses
import itertools

from torch import nn

from lablib.layers import CentreSample, ClipNorm, MaxMin

CHANNELS = 16  # of convolutions, at least
INSIDE = 0.7  # radius behind a convolution, over that of the input


@dataclasses.dataclass(frozen=True)
class Scale:
    """Numbers that belong to a data set of S x S images with values in [0, 1].

    Attributes:
        side: S.
        pool: windows whose mean is taken first, in the small networks.
        radius: to which inputs are clipped, after pooling and centring.
        temperature: of the cross entropy.
    """

    side: int
    pool: int
    radius: float
    temperature: float

    @property
    def whole(self) -> float:
        """The norm of an image of ones: no image is larger."""
        return float(self.side)

    @property
    def pixels(self) -> int:
        """Of a pooled image."""
        return (self.side // self.pool) ** 2


@dataclasses.dataclass(frozen=True)
class Design:
    """One network and how it is trained; ``text`` says in what it differs from the one before."""

    text: str
    family: str = "dense"
    orthonormal: bool = True
    narrowing: bool = False
    clipped_input: bool = True
    centred: bool = False
    clipped_inside: bool = False
    loss_clip: float | None = None
    balanced: bool = False

    @property
    def constraint(self) -> str:
        """Of the engine."""
        return "orthonormal" if self.orthonormal else "spectral"

    @property
    def noise(self) -> str:
        """Of the engine."""
        return "balanced" if self.balanced else "global"


DESIGNS: tuple[Design, ...] = (
    Design("ReLU, spectral norm scaled", orthonormal=False, narrowing=True, clipped_input=False),
    Design("orthonormal, GroupSort", narrowing=True, clipped_input=False),
    Design("constant width", clipped_input=False),
    Design("inputs centred and clipped", centred=True),
    Design("loss clipped at 0.5", centred=True, loss_clip=0.5),
    Design("loss clipped at 0.1", centred=True, loss_clip=0.1),
    Design("noise balanced", centred=True, loss_clip=0.1, balanced=True),
    Design("3 × 3 windows that overlap", "overlapping", centred=True),
    Design("clipped between layers", "overlapping", centred=True, clipped_inside=True),
    Design("2 × 2 patches", "patches", centred=True),
    Design("4 patches in all", "quarters", centred=True),
    Design("loss clipped, noise balanced", "quarters", centred=True, loss_clip=0.1, balanced=True),
)


def build(design: Design, scale: Scale, classes: int) -> nn.Sequential:
    """Return the network of a design for images (1, S, S); only ``nn.Linear`` and ``nn.Conv2d`` are trained."""
    pooled = [nn.AvgPool2d(scale.pool)] if scale.pool > 1 and not design.narrowing else []
    centred = [CentreSample()] if design.centred else []
    radius = scale.radius if design.clipped_input else scale.whole / (scale.pool if pooled else 1)
    layers = (
        _dense(design, scale, classes) if design.family == "dense" else _convolutions(design, scale, classes)
    )
    inside = [ClipNorm(INSIDE * radius)] if design.clipped_inside else []
    activation = MaxMin if design.orthonormal else nn.ReLU
    made = [*pooled, *centred, ClipNorm(radius)]
    for layer in layers[:-1]:
        made += [layer] if isinstance(layer, nn.Flatten) else [layer, activation(), *inside]
    return nn.Sequential(*made, layers[-1])


def _dense(design: Design, scale: Scale, classes: int) -> list[nn.Module]:
    n = scale.pixels
    widths = (
        (scale.side**2, n, _even(n // 2), _even(n // 4), classes)
        if design.narrowing
        else (n, n, n, n, classes)
    )
    return [nn.Flatten(), *(nn.Linear(i, o, bias=False) for i, o in itertools.pairwise(widths))]


def _convolutions(design: Design, scale: Scale, classes: int) -> list[nn.Module]:
    """Two convolutions, the second square: 3 x 3 twice, or patches and then 1 x 1. As many channels as keep norms."""
    side = scale.side // scale.pool
    patch = {"overlapping": 1, "patches": 2, "quarters": side // 2}[design.family]
    channels = max(CHANNELS, _even(patch**2))
    if design.family == "overlapping":
        first, second = (nn.Conv2d(c, channels, 3, padding=1, bias=False) for c in (1, channels))
    else:
        first = nn.Conv2d(1, channels, patch, stride=patch, bias=False)
        second = nn.Conv2d(channels, channels, 1, bias=False)
    return [first, second, nn.Flatten(), nn.Linear(channels * (side // patch) ** 2, classes, bias=False)]


def _even(n: int) -> int:
    """Round up to what MaxMin can pair."""
    return n + n % 2
