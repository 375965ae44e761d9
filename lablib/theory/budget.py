"""The budget lemma: what a network that looks l_inf-Lipschitz spends on each input coordinate.

**Lemma.** Let lambda_j >= 0 be the budget of coordinate j at a scalar neuron f, propagated by the rules below
from budget 1 on its own coordinate. Then |f(x) - f(y)| <= sum_j lambda_j |x_j - y_j| for all x and y.

Proof. It is enough that moving coordinate j alone by t changes f by at most lambda_j |t|: go from x to y one
coordinate at a time and add up. So fix j and let b_i be the budget of j at the layer's input i; by induction
input i is a b_i-Lipschitz function of coordinate j. The output is then Lipschitz with constant:

- *affine, convolution, pooling*: sum_i |w_i| b_i (triangle inequality); *convex residual*: the same mixture;
- *elementwise activation* with constant c: c b_i (c = 1 for the standard ones);
- *group_sort*: max of the b_i in the group. Every order statistic is 1-Lipschitz in l_inf;
- *linf_distance*: max of all b_i, for the same reason:
  |max_i |u_i - w_i| - max_i |v_i - w_i|| <= max_i |u_i - v_i|;
- *sortnet* with weights w: sum_k |w|_(k) b_(k), both sorted descending. Along the path, at almost every point
  the k-th largest value moves like the input that holds that rank, so the sum moves at a rate of at most
  sum_k |w_k| b_(rank k), and no pairing exceeds the sorted one (rearrangement inequality). []

If every row has l_1 norm <= 1, each entry stays <= 1. In a *standard* network the budgets of a neuron add up
to at most 1: they start with sum 1 and are only averaged. A group_sort of size G takes a maximum of G
vectors, which is at most their sum: with n sorts the total is at most G^n. One linf_distance neuron over d
inputs has budget 1 on *each*, total d: that is how it escapes. (The averaging argument of the SortNet paper,
arXiv 2210.01787, Thm 3.5, is the special case of equal budgets.)

Budgets are computed in float64 (float32 weights are widened first) or, with ``exact=True``, in fractions.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lablib.theory.network import activation_constant, apply_layer, evaluate, fractions, trace
from lablib.theory.shapes import Layer, output_shapes

_CHUNK_ENTRIES = 1 << 23  # input coordinates are propagated in chunks of about 64 MB


def budgets(
    layers: Sequence[Layer], input_shape: Sequence[int] | int, *, exact: bool = False
) -> list[np.ndarray]:
    """Return the budget matrix after every layer: (features, d), row = neuron, column = input coordinate.

    Image features and image inputs are flattened in (C, H, W) order. Keeps all layers in memory; for the
    outputs of a large network use :func:`budget`.

    Raises:
        ValueError: if a layer does not fit its input.
    """
    output_shapes(layers, input_shape)
    b, matrices = _unit_vectors(input_shape, exact), []
    for layer in layers:
        b = _propagate([layer], b)
        matrices.append(b.reshape(len(b), -1).T)
    return matrices


def budget(layers: Sequence[Layer], input_shape: Sequence[int] | int, *, exact: bool = False) -> np.ndarray:
    """Return lambda of every output: (out, d), with |f_i(x) - f_i(y)| <= sum_j lambda_ij |x_j - y_j|.

    >>> from lablib.theory.network import affine, activation
    >>> budget([affine([[0.5, 0.5], [0.5, -0.5]]), activation("abs"), affine([[0.5, 0.5]])], 2)
    array([[0.5, 0.5]])

    Raises:
        ValueError: if a layer does not fit its input.
    """
    shapes = [np.atleast_1d(input_shape), *output_shapes(layers, input_shape)]
    widest = max(int(np.prod(shape)) for shape in shapes)
    units = _unit_vectors(input_shape, exact)
    step = max(1, _CHUNK_ENTRIES // widest)
    columns = [_propagate(layers, units[start : start + step]) for start in range(0, len(units), step)]
    return np.concatenate([column.reshape(len(column), -1) for column in columns]).T


@dataclasses.dataclass(frozen=True)
class LemmaCheck:
    """The lemma on n pairs: what f moves by, and what its budget allows.

    Attributes:
        difference: |f(x) - f(y)|, (n, out).
        allowed: sum_j lambda_j |x_j - y_j|, (n, out).
    """

    difference: np.ndarray
    allowed: np.ndarray

    @property
    def slack(self):
        """The smallest allowed - difference; negative means that the lemma is violated on a pair."""
        return (self.allowed - self.difference).min()

    @property
    def ratio(self) -> float:
        """The largest difference / allowed; 1 means that a pair uses its whole budget."""
        allowed, difference = self.allowed.astype(float), self.difference.astype(float)
        ratios = np.divide(difference, allowed, out=np.zeros_like(difference), where=allowed > 0)
        return float(np.where((allowed == 0) & (difference > 0), np.inf, ratios).max())

    def holds(self, tolerance: float = 1e-9) -> bool:
        """Say whether every pair obeys the lemma up to ``tolerance`` (give 0 for exact arithmetic)."""
        return bool(self.slack >= -tolerance)


def check_lemma(layers: Sequence[Layer], x, y) -> LemmaCheck:
    """Compare |f(x) - f(y)| with what the budgets allow, for n pairs of points.

    Args:
        layers: any network.
        x, y: (n, ...) each; object arrays of fractions make the check exact.

    Raises:
        ValueError: if the shapes differ, or there is no pair.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape or len(x) == 0:
        raise ValueError(f"give two equally shaped, non-empty sets of points, not {x.shape} and {y.shape}")
    exact = x.dtype == object
    if not exact:
        x, y = x.astype(np.float64), y.astype(np.float64)
    weights = budget(layers, x.shape[1:], exact=exact)
    difference = np.abs(evaluate(layers, x) - evaluate(layers, y)).reshape(len(x), -1)
    return LemmaCheck(difference, np.abs(x - y).reshape(len(x), -1) @ weights.T)


@dataclasses.dataclass(frozen=True)
class FlowStep:
    """One column of the picture: the network after a layer, for one pair of points.

    Attributes:
        name: the layer's op, or ``input``.
        budget: (features, d).
        total: (features,), the sum of each row of ``budget``.
        difference: (features,), value at x minus value at y.
        allowed: (features,), what the budget allows: sum_j budget_ij |x_j - y_j|.
    """

    name: str
    budget: np.ndarray
    total: np.ndarray
    difference: np.ndarray
    allowed: np.ndarray


def flow(layers: Sequence[Layer], x, y) -> list[FlowStep]:
    """Return budgets and differences flowing through the network from the pair (x, y), input first.

    Args:
        layers: any network.
        x, y: one point each, (F,) or (C, H, W).

    Raises:
        ValueError: if the points' shapes differ or do not fit the network.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.shape != y.shape:
        raise ValueError(f"the two points must have one shape, not {x.shape} and {y.shape}")
    exact = x.dtype == object
    if not exact:
        x, y = x.astype(np.float64), y.astype(np.float64)
    matrices = [_unit_vectors(x.shape, exact).reshape(x.size, x.size), *budgets(layers, x.shape, exact=exact)]
    outputs = trace(layers, np.stack([x, y]))
    gap = np.abs(outputs[0][0] - outputs[0][1]).reshape(-1)
    names = ["input", *(layer.get("kind") or layer["op"] for layer in layers)]
    return [
        FlowStep(name, matrix, matrix.sum(axis=1), (values[0] - values[1]).reshape(-1), matrix @ gap)
        for name, matrix, values in zip(names, matrices, outputs, strict=True)
    ]


def _unit_vectors(input_shape: Sequence[int] | int, exact: bool) -> np.ndarray:
    """Return the input's budgets, one row per coordinate: (d, *input_shape)."""
    shape = tuple(np.atleast_1d(input_shape))
    size = int(np.prod(shape))
    units = np.eye(size).reshape(size, *shape)
    return fractions(units) if exact else units


def _propagate(layers: Sequence[Layer], b: np.ndarray) -> np.ndarray:
    """Return the budgets after the layers; b is (coordinates, *features): coordinates never mix."""
    for layer in layers:
        b = _RULES.get(layer["op"], _linear)(layer, b)
    return b


def _linear(layer: Layer, b: np.ndarray) -> np.ndarray:
    magnitudes = {**layer, "bias": None}
    if "weight" in layer:
        magnitudes["weight"] = _magnitudes(layer["weight"], b)
    return apply_layer(magnitudes, b)


def _magnitudes(values, b: np.ndarray) -> np.ndarray:
    """Return |values| in the arithmetic of b; first widened, because |-128| is not an int8."""
    wide = fractions(values) if b.dtype == object else np.asarray(values).astype(np.float64)
    return np.asarray(np.abs(wide))


def _residual(layer: Layer, b: np.ndarray) -> np.ndarray:
    branch = _propagate(layer["branch"], b)
    alpha = fractions(layer["alpha"]) if b.dtype == object else float(layer["alpha"])
    return (1 - alpha) * b + alpha * branch


def _activation(layer: Layer, b: np.ndarray) -> np.ndarray:
    constant = _magnitudes(activation_constant(layer, exact=b.dtype == object), b)
    return b * (constant.reshape(-1, *[1] * (b.ndim - 2)) if constant.ndim else constant)


def _group_sort(layer: Layer, b: np.ndarray) -> np.ndarray:
    groups = b.reshape(len(b), -1, layer["size"], *b.shape[2:])
    return np.repeat(groups.max(axis=2), layer["size"], axis=1)


def _linf_distance(layer: Layer, b: np.ndarray) -> np.ndarray:
    return np.repeat(b.max(axis=1, keepdims=True), len(layer["weight"]), axis=1)


def _sortnet(layer: Layer, b: np.ndarray) -> np.ndarray:
    return np.sort(b, axis=1) @ np.sort(_magnitudes(layer["weight"], b), axis=1).T


_RULES = {
    "residual": _residual,
    "activation": _activation,
    "group_sort": _group_sort,
    "linf_distance": _linf_distance,
    "sortnet": _sortnet,
}
