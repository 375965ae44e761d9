"""From networks to certificates: norms, certified radii, attacks. ``bound_*`` is proven, ``estimate_*`` is not.

from lablib.certify import attacked_radius, bound_radius, bound_radius_box, certify_slopes
network.eval()                                    # bounds are of networks in evaluation mode
radii = bound_radius(network, x, labels)          # Lipschitz margins, float rounding included
wider = bound_radius_box(network, x, labels)      # interval bounds within the pixel box
slopes = certify_slopes(network)                  # proven intervals, every output and input
nearest, points = attacked_radius(network, x, labels)
"""

from lablib.certify.attacks import adaptive, attacked_at, attacked_radius, pgd
from lablib.certify.box_rounding import bound_box_error, bound_step_back
from lablib.certify.curves import Bracket, bracket
from lablib.certify.exact import ExactRadius, exact_radius
from lablib.certify.exact_slopes import ExactSlopes, exact_slopes
from lablib.certify.intervals import bound_logits, bound_margins, bound_radius_box
from lablib.certify.margins import bound_radius_logits, bound_radius_scalar, certified_accuracy
from lablib.certify.norms import bound_operator_norm, estimate_operator_norm
from lablib.certify.rounding import bound_output_error, bound_radius
from lablib.certify.slope_radii import bound_radius_slopes
from lablib.certify.slopes import Slopes, certify_slopes

__all__ = [
    "Bracket",
    "ExactRadius",
    "ExactSlopes",
    "Slopes",
    "adaptive",
    "attacked_at",
    "attacked_radius",
    "bound_box_error",
    "bound_logits",
    "bound_margins",
    "bound_operator_norm",
    "bound_output_error",
    "bound_radius",
    "bound_radius_box",
    "bound_radius_logits",
    "bound_radius_scalar",
    "bound_radius_slopes",
    "bound_step_back",
    "bracket",
    "certified_accuracy",
    "certify_slopes",
    "estimate_operator_norm",
    "exact_radius",
    "exact_slopes",
    "pgd",
]
