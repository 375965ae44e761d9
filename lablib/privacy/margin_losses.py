"""Losses on margins, in the l2 geometry of the outputs: hinge, Kantorovich-Rubinstein, and their sum.

Shapes, and what ``lipschitz`` states: :mod:`lablib.privacy.losses`.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from lablib.layers.base import Fixed
from lablib.privacy.loss_base import PerSampleLoss, number, output_count, positive
from lablib.privacy.targets import check_outputs, class_targets

SQRT2 = math.sqrt(2.0)


class Hinge(PerSampleLoss):
    """max(0, m - r) with r = (f_y - max_{j != y} f_j) / sqrt(2), or r = t f for one output: 1-Lipschitz.

    r is a minimum of linear functions with gradients (e_y - e_j) / sqrt(2) of norm 1 (t = -1 or 1 for one output),
    hence 1-Lipschitz, and so is max(0, m - r). Tight: wherever r < m and the largest other output is unique. r is
    the certified l2 radius of an l2 1-Lipschitz network, so the loss asks for a certified radius of m.

    Targets: classes (B,) int64 for C >= 2; -1 or 1 (B,) for C = 1.

    Args:
        margin: m, positive, in units of the outputs.
    """

    margin = Fixed()

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = positive(margin, "margin")

    @property
    def lipschitz(self) -> float:
        """1."""
        return 1.0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        outputs = check_outputs(outputs, self)
        return F.relu(self.margin - _least_margin(outputs, class_targets(outputs, targets)))

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"margin={self.margin:g}"


class KR(PerSampleLoss):
    """-w_y <f, u_y>, u_y = (e_y - 1/C) / ||e_y - 1/C||_2, or -w_t t f for one output: max(w)-Lipschitz.

    The dual form of the Wasserstein distance (Kantorovich and Rubinstein), one sample at a time: the own output
    against the mean of the others, <f, u_y> = sqrt((C - 1) / C) (f_y - mean_{j != y} f_j). It is linear in f with a
    gradient of norm w_y, so the constant is tight.

    The weights are public constants. The published form divides by how often each class occurs in the batch drawn;
    then one sample more changes every other sample's loss, and a class that occurs once among B has the weight B.

    Targets: classes (B,) int64 for C >= 2; -1 or 1 (B,) for C = 1.

    Args:
        weights: w, one number >= 0 per class ((w_-1, w_1) for one output), e.g. from published class frequencies;
            None for 1.
    """

    weights = Fixed()

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.weights = _weights(weights)

    @property
    def lipschitz(self) -> float:
        """The largest weight."""
        return max(self.weights or (1.0,))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        outputs = check_outputs(outputs, self)
        labels = class_targets(outputs, targets)
        return -_weigh(_mean_margin(outputs, labels), labels, self.weights, outputs.shape[1])

    def extra_repr(self) -> str:
        """Name the setting."""
        return f"weights={self.weights}"


class HKR(PerSampleLoss):
    """KR + alpha times Hinge, both weighted with w_y: max(w) (1 + alpha)-Lipschitz, less for known C > 2.

    The two gradients have norms w_y and at most alpha w_y, so the sum has at most w_y (1 + alpha); this is attained
    for C = 1 and C = 2, where they point the same way. For C > 2 they do not: <e_y - 1/C, e_y - e_j> = 1, so the
    cosine between them is c = sqrt(C / (2 (C - 1))), and the largest norm (the norm is convex in the hinge's
    gradient, which lies in the hull of these directions) is w_y sqrt(1 + alpha^2 + 2 c alpha): 6.6 % less for
    alpha = 1 and C = 10. Give ``outputs`` to have this constant.

    Targets: classes (B,) int64 for C >= 2; -1 or 1 (B,) for C = 1.

    Args:
        alpha: weight of the hinge, not negative.
        margin: of the hinge, positive.
        weights: public class weights as in :class:`KR`.
        outputs: C, or None for a constant that holds for every C.
    """

    alpha, margin, weights, outputs = Fixed(), Fixed(), Fixed(), Fixed()

    def __init__(
        self,
        alpha: float = 1.0,
        margin: float = 1.0,
        weights: Sequence[float] | None = None,
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        self.alpha = number(alpha, "alpha")
        if self.alpha < 0:
            raise ValueError(f"alpha, the weight of the hinge, must not be negative, got {alpha}")
        self.margin = positive(margin, "margin")
        self.weights = _weights(weights)
        self.outputs = output_count(outputs)

    @property
    def lipschitz(self) -> float:
        """max(w) (1 + alpha), or max(w) sqrt(1 + alpha^2 + 2 c alpha) where C is given."""
        one = 1.0 + self.alpha
        if self.outputs is not None and self.outputs > 2:
            cosine = math.sqrt(self.outputs / (2.0 * (self.outputs - 1)))
            root = math.sqrt(1.0 + self.alpha**2 + 2.0 * cosine * self.alpha)
            one = min(one, root * (1.0 + 2.0**-48))  # a dozen roundings up
        return math.nextafter(max(self.weights or (1.0,)) * one, math.inf)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B,); see the class."""
        outputs = check_outputs(outputs, self, exactly=self.outputs)
        labels = class_targets(outputs, targets)
        hinge = F.relu(self.margin - _least_margin(outputs, labels))
        return _weigh(
            self.alpha * hinge - _mean_margin(outputs, labels), labels, self.weights, outputs.shape[1]
        )

    def extra_repr(self) -> str:
        """Name the settings."""
        return f"alpha={self.alpha:g}, margin={self.margin:g}, weights={self.weights}, outputs={self.outputs}"


def _least_margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return (f_y - max_{j != y} f_j) / sqrt(2), (B,); t f for one output."""
    if outputs.shape[1] == 1:
        return outputs[:, 0] * _signs(outputs, labels)
    own = outputs.gather(1, labels[:, None])[:, 0]
    return (own - outputs.scatter(1, labels[:, None], -math.inf).amax(1)) / SQRT2


def _mean_margin(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return (f_y - mean_j f_j) sqrt(C / (C - 1)), (B,); t f for one output."""
    classes = outputs.shape[1]
    if classes == 1:
        return outputs[:, 0] * _signs(outputs, labels)
    own = outputs.gather(1, labels[:, None])[:, 0]
    return (own - outputs.mean(1)) * math.sqrt(classes / (classes - 1))


def _signs(outputs: Tensor, labels: Tensor) -> Tensor:
    return 2 * labels.to(outputs.dtype) - 1


def _weigh(values: Tensor, labels: Tensor, weights: tuple[float, ...] | None, classes: int) -> Tensor:
    """Return ``values`` (B,) times the weight of each one's class."""
    if weights is None:
        return values
    if len(weights) != max(2, classes):
        raise ValueError(
            f"there are {len(weights)} class weights for {max(2, classes)} classes; give one each"
        )
    return values * values.new_tensor(weights)[labels]


def _weights(values: Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    weights = tuple(number(value, "a class weight") for value in values)
    if len(weights) < 2 or min(weights) < 0 or max(weights) == 0:
        raise ValueError(f"class weights are numbers >= 0, not all 0, one per class, got {weights}")
    return weights
