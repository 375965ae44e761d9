"""SortNet as the common generalisation: weights that make it an affine, a GroupSort or an l_inf-distance
layer.

A SortNet neuron is w . sort_descending(|x + c|) + b with ||w||_1 <= 1 (SortNet paper, arXiv 2210.01787,
Section 4). The weights belong to ranks, not to inputs; on a bounded domain |x_i| <= R the centers c can be so
far apart that each input's rank is known, and then the weights belong to inputs again.
"""

from fractions import Fraction

import numpy as np

from lablib.theory.network import Layer, fractions


def distance_as_sortnet(layer: Layer) -> Layer:
    """Return the SortNet layer equal to an ``linf_distance`` layer: w = (1, 0, ..., 0), c = -weight."""
    weight = np.asarray(layer["weight"])
    ranks = np.zeros(weight.shape, dtype=np.int64)
    ranks[:, 0] = 1
    return {"op": "sortnet", "weight": ranks, "center": -weight, "bias": layer.get("bias")}


def affine_as_sortnet(layer: Layer, radius: Fraction | int) -> Layer:
    """Return the SortNet layer equal to an ``affine`` layer wherever all |x_i| <= radius; same rows, in
    fractions.

    With c_i = R + 2R (F - i) for i = 1..F the value x_i + c_i lies in [2R (F - i), 2R (F - i + 1)]: never
    negative, and ordered by i whatever x is. So rank i is input i, and the sum of w_i c_i goes into the bias.

    Raises:
        ValueError: if the radius is not positive.
    """
    _check_radius(radius)
    weight = fractions(layer["weight"])
    out, features = weight.shape
    center = fractions(radius + 2 * radius * np.arange(features - 1, -1, -1))
    bias = fractions(np.zeros(out) if layer.get("bias") is None else layer["bias"])
    return {
        "op": "sortnet",
        "weight": weight,
        "center": np.broadcast_to(center, weight.shape),
        "bias": bias - weight @ center,
    }


def group_sort_as_sortnet(features: int, size: int, radius: Fraction | int) -> Layer:
    """Return the SortNet layer equal to ``group_sort`` wherever all |x_i| <= radius.

    The neuron for one group has c_i = 2R on the group and 0 elsewhere: the group's values, in [R, 3R], hold
    the top G ranks, the others are at most R. Ascending position p is descending rank G - p: weight 1 there,
    bias -2R.

    Raises:
        ValueError: if the radius is not positive, or the features do not split into groups of that size.
    """
    _check_radius(radius)
    if size < 1 or features < 1 or features % size:
        raise ValueError(f"{features} features cannot be split into groups of size {size}")
    index = np.arange(features)
    rank = np.zeros((features, features), dtype=np.int64)
    rank[index, size - 1 - index % size] = 1
    same_group = index[:, None] // size == index // size
    return {
        "op": "sortnet",
        "weight": rank,
        "center": fractions(same_group * 2) * radius,
        "bias": fractions(np.full(features, -2)) * radius,
    }


def _check_radius(radius: Fraction | int) -> None:
    if not radius > 0:
        raise ValueError(f"the domain |x_i| <= radius needs a positive radius, not {radius}")
