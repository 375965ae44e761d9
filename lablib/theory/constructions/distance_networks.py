"""Two layers of l_inf-distance neurons: every Boolean function at radius 1/2, every order statistic.

SortNet paper (arXiv 2210.01787), Thm 3.8. A neuron max_i |x_i - w_i| + b is 1-Lipschitz in l_inf whatever its
weights; a minimum of values z_i <= c is one as well: max_i |z_i - c| = c - min_i z_i.
"""

import itertools
from fractions import Fraction

import numpy as np

from lablib.theory.boolean import BooleanFunction
from lablib.theory.network import Layer
from lablib.theory.order_statistics import check_order


def distance(weight, bias=None) -> Layer:
    """Return the layer max_i |x_i - w_i| + b; weight (out, F)."""
    return {"op": "linf_distance", "weight": np.asarray(weight), "bias": bias}


def boolean_network(function: BooleanFunction) -> list[Layer]:
    """Return f(x) = 1/2 - (l_inf distance of x to the set g = 1) on [0,1]^d: |f| = 1/2 at every vertex.

    Layer 1 measures the distance to every vertex with g = 1: at most 1 on the cube. Layer 2 is 1/2 minus
    their minimum. Two different vertices are at distance 1, so f = 1/2 where g = 1 and f = -1/2 where g = 0.
    The width is the number of ones in the table. For g = 0 the point (2, ..., 2) stands in, at distance 1 or
    2 of the vertices: f <= -1/2.
    """
    ones = function.vertices()[function.table]
    if len(ones):
        farthest = 1
    else:
        ones, farthest = np.full((1, function.variables), 2), 2
    bias = np.array([Fraction(1, 2) - farthest])
    return [distance(ones), distance(np.full((1, len(ones)), farthest), bias)]


def order_statistic_network(d: int, k: int) -> list[Layer]:
    """Return x_(k), the k-th largest coordinate, exactly on [0,1]^d: C(d, k) neurons, then one.

    x_(k) is the maximum over all sets S of k coordinates of min_S x. Layer 1, weight 2 on S and 1/2 off S:
    the entries are 2 - x_i >= 1 on S and at most 1/2 off S, so z_S = 2 - min_S x. Layer 2, all weights 2:
    max_S (2 - z_S).

    Raises:
        ValueError: unless 1 <= k <= d.
    """
    check_order(d, k)
    sets = list(itertools.combinations(range(d), k))
    weight = np.full((len(sets), d), Fraction(1, 2), dtype=object)
    weight[np.arange(len(sets))[:, None], np.array(sets)] = Fraction(2)
    return [distance(weight), distance(np.full((1, len(sets)), 2))]
