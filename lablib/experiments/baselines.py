"""Networks that SortNet is compared with, trained by the same loop.

The l_inf-distance net is ``SortMLP(keep=1)``; here are the others. Letters: B batch, C classes.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lablib.layers import Abs, GroupSort, LInfLinear, LipschitzSequential, Normalise
from lablib.layers.boxes import linear_worst, propagate_box

START_INPUTS, START_SCALE = 16, 5.0


class LinearSorting(nn.Module):
    """``depth`` linf-constrained linear layers with GroupSort or |x| between them: 1 / std-Lipschitz in linf.

    Rows are projected onto the l1 ball, and start with 16 inputs each: rows that are divided by their norm stay
    dense, and averages of many pixels leave small margins.

    GroupSort approximates every 1-Lipschitz function in linf (arXiv 1811.05381, section 4). |x| does not even give
    max(a, b): its gradient is e_a or e_b, vertices of the l1 ball, and what a row averages would have to agree
    with it, down to the first layer, where |w x| has the gradient +-w on both sides.

    Args:
        in_features: pixels x channels.
        width, depth: neurons per layer, linear layers.
        activation: "groupsort" (size 2, MaxMin) or "abs".
        classes: C.
        mean, std: of the inputs.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        activation: str = "groupsort",
        classes: int = 10,
        mean: float | Sequence[float] = 0.0,
        std: float = 1.0,
    ):
        super().__init__()
        make = {"groupsort": lambda: GroupSort(2), "abs": Abs}.get(activation)
        if make is None:
            raise ValueError(f"activation is 'groupsort' or 'abs', got {activation!r}")
        layers: list[nn.Module] = [Normalise(mean, std), nn.Flatten()]
        sizes = [in_features, *[width] * (depth - 1)]
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [_sparse_linear(inputs, outputs), make()]
        self.chain = LipschitzSequential(*layers, _sparse_linear(sizes[-1], classes))
        # Logits differ by less than 1 at first: cross entropy at scale 1 would hardly tell classes apart.
        self.scale = nn.Parameter(torch.full((1,), START_SCALE))

    def network(self) -> LipschitzSequential:
        """Return the network as a plain chain; nothing in it depends on the mode."""
        return self.chain

    @property
    def lipschitz(self) -> float:
        """The constant of each logit in linf."""
        return self.chain.lipschitz

    def groups(self) -> list[dict]:
        """Parameters for the optimiser: a constraint is no place for weight decay."""
        return [
            {"params": list(self.chain.parameters()), "decay": False},
            {"params": [self.scale], "decay": True},
        ]

    def forward(self, x: Tensor) -> Tensor:
        """x (B, ...) -> logits (B, C)."""
        return self.chain(x)


def _sparse_linear(inputs: int, outputs: int) -> LInfLinear:
    """Return a projected layer whose rows are +-1 / k at k random inputs, k = 16 or all there are."""
    layer = LInfLinear(inputs, outputs, constraint="project")
    count = min(START_INPUTS, inputs)
    chosen = torch.rand(outputs, inputs).topk(count).indices
    signs = torch.randint(2, (outputs, count)) * 2.0 - 1.0
    layer.weight = torch.zeros(outputs, inputs).scatter(1, chosen, signs / count)
    return layer


class BoxReLU(nn.Module):
    """``depth`` linear layers with ReLU, for interval bound training (arXiv 1810.12715).

    ``forward(x, labels, eps)`` -> (f, worst), worst_j an upper bound of f_j - f_y over the box of radius eps
    around x within [0, 1]. Arguments as of :class:`LinearSorting`.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        classes: int = 10,
        mean: float | Sequence[float] = 0.0,
        std: float = 1.0,
    ):
        super().__init__()
        layers: list[nn.Module] = [Normalise(mean, std), nn.Flatten()]
        sizes = [in_features, *[width] * (depth - 1)]
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.chain = nn.Sequential(*layers, nn.Linear(sizes[-1], classes))

    def network(self) -> nn.Sequential:
        """Return the network as a plain chain; nothing in it depends on the mode."""
        return self.chain

    def groups(self) -> list[dict]:
        """Parameters for the optimiser."""
        return [{"params": list(self.chain.parameters()), "decay": False}]

    def forward(self, x: Tensor, labels: Tensor | None = None, eps: float = 0.0):
        """x (B, ...) -> logits (B, C); with labels (B,), (logits, worst)."""
        logits = self.chain(x)
        if labels is None:
            return logits
        box = ((x - eps).clamp(min=0.0), (x + eps).clamp(max=1.0))
        lower, upper = propagate_box(self.chain[:-1], *box)
        return logits, linear_worst(self.chain[-1], lower, upper, labels)
