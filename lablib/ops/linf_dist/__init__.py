"""The l_inf-distance neuron y_k = max_i |x_i - w_ki|: the one place that chooses how it is computed.

Source: Zhang et al., "Towards certifying l_inf robustness using neural networks with l_inf-dist neurons"
(arXiv 2102.05363), section 3; SortNet paper (arXiv 2210.01787), Thm 3.8.
"""

from torch import Tensor

from lablib.ops.linf_dist import reference

__all__ = ["linf_distance"]


def linf_distance(x: Tensor, weight: Tensor) -> Tensor:
    """Return max_i |x_i - w_ki| for x (..., I) and w (O, I): shape (..., O). 1-Lipschitz in linf, also in w.

    The gradient goes to the first of tied maxima (``torch.max``'s choice). NaN in a row of ``x`` makes its
    outputs NaN.

    Raises:
        ValueError: for shapes that do not match, or no inputs at all.
    """
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1] or weight.shape[1] == 0:
        raise ValueError(
            f"x (..., I) and weight (O, I) with I >= 1 expected, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    return reference.linf_distance(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[0])
