"""Private training without clipping gradients: Lipschitz networks, whose sensitivities are proven.

from lablib.privacy import CliplessEngine, CrossEntropy, project, sensitivity
net = nn.Sequential(ClipNorm(1.0), nn.Flatten(), nn.Linear(784, 256), MaxMin(), nn.Linear(256, 10))
print(sensitivity(net, (1, 28, 28), 2**0.5, norms=project(net, "orthonormal")).table())
"""

from lablib.privacy.certifiable import certifiable
from lablib.privacy.cotangents import ClipCotangent
from lablib.privacy.engine import CliplessEngine
from lablib.privacy.losses import (
    HKR,
    KR,
    MAE,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    Hinge,
    check_loss,
    loss_lipschitz,
)
from lablib.privacy.projections import CONSTRAINTS, check_constraint, project
from lablib.privacy.residual import Residual
from lablib.privacy.run import BudgetSpent
from lablib.privacy.sensitivity import LayerBound, Sensitivity, sensitivity

__all__ = [
    "BinaryCrossEntropy",
    "BudgetSpent",
    "CONSTRAINTS",
    "ClipCotangent",
    "CliplessEngine",
    "Cosine",
    "CrossEntropy",
    "HKR",
    "Hinge",
    "KR",
    "LayerBound",
    "MAE",
    "Residual",
    "Sensitivity",
    "certifiable",
    "check_constraint",
    "check_loss",
    "loss_lipschitz",
    "project",
    "sensitivity",
]
