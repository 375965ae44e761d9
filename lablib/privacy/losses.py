"""Per-sample losses with proven Lipschitz constants: where the backward bound of private training starts.

Shapes: B samples, C outputs (logits). A loss maps outputs (B, C) and targets to (B,), one number per sample:
nothing is averaged, and no sample's number depends on another sample. ``lipschitz`` bounds the l2 norm of the
gradient of one sample's loss in its own outputs, for every output and every target:

    ||d loss(f, t) / d f||_2 <= lipschitz.

Each class derives its constant. The statements are about real functions; a computed gradient is within a few
units of rounding of the real one, and the engine cuts every cotangent at the constant before it uses it. For
privacy all settings (temperature, margin, class weights, ...) must be chosen without looking at the private data.
The constants, without proof: arXiv 2305.16202, section 3 and its appendix on losses.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import Fixed
from lablib.layers.intact import check_intact
from lablib.privacy.loss_base import PerSampleLoss, number, output_count, positive
from lablib.privacy.margin_losses import HKR, KR, Hinge
from lablib.privacy.targets import check_outputs, class_targets, direction_targets, value_targets

SQRT2 = math.sqrt(2.0)  # as a float64 above the root of 2


class CrossEntropy(PerSampleLoss):
    """CE(tau f, y) / tau = (log sum_j exp(tau f_j)) / tau - f_y: sqrt(2)-Lipschitz for every tau.

    The gradient is p - e_y with p = softmax(tau f), so its square is (1 - p_y)^2 + sum_{j != y} p_j^2
    <= 2 (1 - p_y)^2 <= 2, since the other p_j are nonnegative and add up to 1 - p_y. Tight: f_j - f_y -> infinity for
    one j. A larger tau asks for less margin: the loss tends to max_j f_j - f_y.

    Targets: classes (B,) int64, C >= 2.

    Args:
        temperature: tau, from 1e-6 to 1e6.
    """

    temperature = Fixed()

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = positive(temperature, "temperature")

    @property
    def lipschitz(self) -> float:
        """sqrt(2)."""
        return SQRT2

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        scaled = check_outputs(self.temperature * outputs, self, least=2)
        labels = class_targets(scaled, targets)
        return F.cross_entropy(scaled, labels, reduction="none") / self.temperature

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"temperature={self.temperature:g}"


class BinaryCrossEntropy(PerSampleLoss):
    """mean_j BCE(tau f_j, t_j) / tau, BCE(z, t) = log(1 + exp z) - t z: 1-Lipschitz, 1 / sqrt(C) for C labels.

    Entry j of the gradient is (sigmoid(tau f_j) - t_j) / C, in [-1/C, 1/C] because t_j is in [0, 1]; the norm of C
    such entries is at most 1 / sqrt(C). Tight: every f_j -> infinity with t_j = 0.

    Targets: in [0, 1], (B, C), or (B,) for one output; whole numbers and bool too.

    Args:
        temperature: tau, from 1e-6 to 1e6.
        outputs: C. With None the constant is 1, that of C = 1, which holds for every C.
    """

    temperature, outputs = Fixed(), Fixed()

    def __init__(self, temperature: float = 1.0, outputs: int | None = None) -> None:
        super().__init__()
        self.temperature = positive(temperature, "temperature")
        self.outputs = output_count(outputs)

    @property
    def lipschitz(self) -> float:
        """1 / sqrt(C), or 1 where C is not given."""
        return _mean_constant(self.outputs)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        scaled = check_outputs(self.temperature * outputs, self, exactly=self.outputs)
        values = value_targets(scaled, targets)
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError("the targets of a binary cross entropy lie in [0, 1]; 0 and 1 for hard labels")
        losses = F.binary_cross_entropy_with_logits(scaled, values, reduction="none")
        return losses.mean(1) / self.temperature

    def extra_repr(self) -> str:
        """Name the settings."""
        return f"temperature={self.temperature:g}, outputs={self.outputs}"


class MAE(PerSampleLoss):
    """mean_j |f_j - t_j|: 1-Lipschitz, 1 / sqrt(C) for C outputs.

    Entries of the gradient are -1/C, 0 or 1/C, so its norm is at most sqrt(C) / C. Tight: no f_j = t_j.

    Targets: numbers (B, C), or (B,) for one output; or classes (B,) int64 for C >= 2, which stand for one-hot rows.

    Args:
        outputs: C. With None the constant is 1, that of C = 1, which holds for every C.
    """

    outputs = Fixed()

    def __init__(self, outputs: int | None = None) -> None:
        super().__init__()
        self.outputs = output_count(outputs)

    @property
    def lipschitz(self) -> float:
        """1 / sqrt(C), or 1 where C is not given."""
        return _mean_constant(self.outputs)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        outputs = check_outputs(outputs, self, exactly=self.outputs)
        return (outputs - value_targets(outputs, targets, classes=True)).abs().mean(1)

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"outputs={self.outputs}"


class Cosine(PerSampleLoss):
    """-<f / max(||f||_2, K), t / ||t||_2>: 1 / K-Lipschitz, K the smallest norm that counts.

    f / max(||f||, K) = P(f / K) with P the projection onto the unit ball, which is 1-Lipschitz; so f -> P(f / K) is
    1/K-Lipschitz, and so is its product with a unit vector. Tight: any f shorter than K, where the gradient is
    -t / (K ||t||). Without K no constant exists: the gradient of the plain cosine grows as 1 / ||f||. (The earlier
    package states 1 / K^2, too small for K > 1.)

    Targets: directions (B, C), not 0, or classes (B,) int64 for C >= 2, which stand for unit vectors.

    Args:
        min_norm: K, positive.
    """

    min_norm = Fixed()

    def __init__(self, min_norm: float = 1.0) -> None:
        super().__init__()
        self.min_norm = positive(min_norm, "min_norm")

    @property
    def lipschitz(self) -> float:
        """1 / K."""
        return math.nextafter(1.0 / self.min_norm, math.inf)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        outputs = check_outputs(outputs, self)
        directions = direction_targets(outputs, targets)
        # numerator and denominator divided by one constant, so that no square overflows
        size = outputs.detach().abs().amax(1, keepdim=True).clamp(min=self.min_norm)
        scaled = outputs / size
        length = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
        return -(scaled / torch.maximum(length, self.min_norm / size) * directions).sum(1)

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"min_norm={self.min_norm:g}"


def _mean_constant(outputs: int | None) -> float:
    return 1.0 if outputs in (None, 1) else math.nextafter(1.0 / math.sqrt(outputs), 1.0)


LOSSES = (CrossEntropy, BinaryCrossEntropy, Hinge, KR, HKR, MAE, Cosine)
INSTEAD = {  # of torch's losses, modules and functions: name in small letters without "loss" and "_"
    "crossentropy": "CrossEntropy(temperature)",
    "linearcrossentropy": "CrossEntropy(temperature), after the linear layer",
    "nll": "CrossEntropy(temperature), on the logits",
    "kldiv": "CrossEntropy(temperature), on the logits",
    "bce": "BinaryCrossEntropy(temperature), on the logits",
    "bcewithlogits": "BinaryCrossEntropy(temperature)",
    "binarycrossentropy": "BinaryCrossEntropy(temperature), on the logits",
    "binarycrossentropywithlogits": "BinaryCrossEntropy(temperature)",
    "softmargin": "BinaryCrossEntropy(temperature)",
    "multilabelsoftmargin": "BinaryCrossEntropy(temperature, outputs=C)",
    "multimargin": "Hinge(margin)",
    "multilabelmargin": "Hinge(margin)",
    "hingeembedding": "Hinge(margin)",
    "l1": "MAE(outputs=C)",
    "smoothl1": "MAE(outputs=C)",
    "huber": "MAE(outputs=C)",
    "mse": "MAE(outputs=C); a square has no such constant",
    "cosineembedding": "Cosine(min_norm)",
    "cosinesimilarity": "Cosine(min_norm)",
}


def check_loss(criterion: nn.Module) -> float:
    """Return the proven constant of ``criterion``, a loss of this file that is still what its class says.

    Raises:
        ValueError: for anything else, a subclass included; for torch's losses it says which of ours to take.
    """
    if type(criterion) in LOSSES:
        check_intact(criterion)
        if criterion._backward_hooks or criterion._backward_pre_hooks:
            raise ValueError(
                f"{type(criterion).__name__} has a backward hook, which may change its gradient; remove it"
            )
        return criterion.lipschitz
    if isinstance(criterion, type) and criterion in LOSSES:
        raise ValueError(f"{criterion.__name__} is a class; make an object of it: {criterion.__name__}()")
    name = getattr(criterion, "__name__", type(criterion).__name__)
    ours = INSTEAD.get(name.lower().replace("_", "").removesuffix("loss"))
    if ours:
        raise ValueError(
            f"{name} has no Lipschitz constant that is proven here, per sample; take lablib.privacy.{ours}"
        )
    raise ValueError(
        f"{name} is no loss whose Lipschitz constant per sample is proven here; take one of "
        f"{', '.join(loss.__name__ for loss in LOSSES)} of lablib.privacy (itself, not a subclass)"
    )


def loss_lipschitz(criterion: nn.Module, loss_clip: float | None = None) -> float:
    """Return min(L, C): what bounds each sample's cotangent at the outputs, clipped there to l2 norm C.

    C is compared with the constant L of *one* sample's loss. The published form compares it with L / b, the constant
    of the mean over b samples: for C above L / b, hence always, that lowers no noise.

    Args:
        criterion: one of :data:`LOSSES`.
        loss_clip: C, positive; None for no clipping.

    Raises:
        ValueError: for another loss, or a clipping norm that is not positive.
    """
    lipschitz = check_loss(criterion)
    if loss_clip is None:
        return lipschitz
    if not number(loss_clip, "loss_clip") > 0:
        raise ValueError(
            f"loss_clip, the largest norm of a sample's cotangent, must be positive, got {loss_clip}"
        )
    return min(lipschitz, float(loss_clip))
