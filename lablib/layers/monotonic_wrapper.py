"""MonotonicWrapper: a Lipschitz network of one's own, made monotone, under the names of monotonicnetworks.

Source: Kitouni, Nolte, Williams, "Robust and Provably Monotonic Networks" (arXiv 2112.00038), section 2.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lablib.layers.base import Fixed, check_channels, exact, layer_name
from lablib.layers.directions import Directions, as_numbers, check_saved_directions, checked_directions
from lablib.layers.intact import is_chain
from lablib.layers.lipschitz_linear import SAVED_CAP, check_saved_cap
from lablib.layers.monotone import round_up
from lablib.layers.monotone_checks import check_dtype
from lablib.layers.partials import bound_partials
from lablib.ops.projections import check_cap

_SAVED_DIRECTIONS = "monotonic_constraints"


class MonotonicWrapper(Directions):
    """f_o(x) = nn_o(x) + lambda sum_i s_oi x_i: monotone where every |slope| of ``nn`` is at most lambda.

    That bound must follow from what the layers of ``lipschitz_module`` state (:func:`~lablib.layers.bound_partials`):
    chains of :class:`~lablib.layers.LipschitzLinear` whose kinds fit together, of other layers here, and of
    activations. ``lipschitz_const`` is the constant of the *whole* module, not that of one layer. If parts of
    ``nn`` are exchanged, the bound is asked for again at the next call. ``nn`` is given rows (N, I) whatever the
    axes before: what mixes them, or takes axis 1 for channels, would not be monotone.

    ``GroupSort`` here takes the *size* of a group; that of monotonicnetworks takes the number of groups.

    Args:
        lipschitz_module: x (..., I) -> (..., O); kept as ``nn``.
        lipschitz_const: lambda, between 1e-30 and 1e30.
        monotonic_constraints: +1 increasing, -1 decreasing, 0 free; (I,) for all outputs, or as in
            monotonicnetworks (I, O) or (I, 1). None: increasing in all inputs.
        assume_lipschitz: take ``lipschitz_const`` at your word, for modules of which nothing is known here.

    Attributes:
        directions: s (O, I); (1, I) where one row holds for all outputs.
        lipschitz: lambda.

    Raises:
        ValueError: if the module states no bound, or a larger one; for other constraints or constants.
    """

    lipschitz = Fixed()
    added = Fixed()
    assume_lipschitz = Fixed()
    head = None
    stated_elsewhere = "is bounded slope by slope; ask lablib.certify.certify_slopes"

    def __init__(
        self,
        lipschitz_module: nn.Module,
        lipschitz_const: float = 1.0,
        monotonic_constraints: Sequence | Tensor | None = None,
        *,
        assume_lipschitz: bool = False,
    ):
        super().__init__()
        if not isinstance(lipschitz_module, nn.Module):
            raise ValueError(f"lipschitz_module is a torch module, got {type(lipschitz_module).__name__}")
        self.lipschitz, self.assume_lipschitz = check_cap(lipschitz_const), bool(assume_lipschitz)
        self.nn = lipschitz_module
        self.added = self.lipschitz if self.assume_lipschitz else self._proven_constant()
        self._proven = tuple(self.nn.modules())
        signs = _rows(monotonic_constraints, lipschitz_module)
        like = next((p for p in lipschitz_module.parameters() if p.is_floating_point()), torch.empty(0))
        self._keep_directions(signs, like)

    def _proven_constant(self) -> float:
        """What bounds the slopes of ``nn``: lambda, or barely more where a product of roots was rounded up."""
        try:
            bound = bound_partials(self.nn)
        except ValueError as error:
            raise ValueError(
                f"the slopes of {layer_name(self.nn)} are not bounded by what its layers state: {error}; with "
                "assume_lipschitz=True your word is taken for it"
            ) from error
        if bound > self.lipschitz * (1.0 + 1e-9):
            raise ValueError(
                f"{layer_name(self.nn)} has slopes up to {bound:g}, so lipschitz_const={self.lipschitz:g} is not "
                "enough; it is the constant of the whole module, the product over its layers"
            )
        return max(bound, self.lipschitz)

    @property
    def network(self) -> nn.Module:
        """The module that was made monotone, ``nn``."""
        return self.nn

    @property
    def lipschitz_const(self) -> float:
        """lambda."""
        return self.lipschitz

    @exact
    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) -> (..., O)."""
        check_channels(x, self.directions.shape[1], -1, self)
        check_dtype(x, self.directions.dtype, self)
        rows = x.reshape(-1, x.shape[-1])
        y = self.nn(rows)
        added = F.linear(rows, self.directions * self.residual())
        if y.shape[:-1] != added.shape[:-1] or added.shape[-1] not in (1, y.shape[-1]):
            raise ValueError(
                f"constraints for {added.shape[-1]} outputs do not fit what {layer_name(self.nn)} returns, "
                f"{tuple(y.shape)} for {tuple(rows.shape)}"
            )
        return (y + added).reshape(*x.shape[:-1], y.shape[-1])

    def residual(self) -> Tensor:
        """Return r, of the shape and dtype of ``directions``: lambda, or 0 for free inputs.

        Raises:
            ValueError: if parts of the module were exchanged for others that r is not enough for, or directions
                were changed.
        """
        if not torch.compiler.is_compiling():
            self.check_directions()
        if not self.assume_lipschitz and not torch.compiler.is_compiling():
            parts = tuple(self.nn.modules())
            if len(parts) != len(self._proven) or any(a is not b for a, b in zip(parts, self._proven)):
                if self._proven_constant() > self.added:
                    raise ValueError(
                        "parts were exchanged for others with larger constants; make a new wrapper"
                    )
                self._proven = parts
        signs = self.directions
        return round_up(signs.double().abs() * self.added, signs.dtype)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + SAVED_CAP] = torch.tensor(self.lipschitz, dtype=torch.float64)
        destination[prefix + _SAVED_DIRECTIONS] = self.directions.detach().T.clone()

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        check_saved_cap(self, self.lipschitz, state_dict, prefix)
        check_saved_directions(self, state_dict, prefix + _SAVED_DIRECTIONS, torch.tensor(self.signs).T)
        self._restore_directions(state_dict, prefix, local_metadata.get("assign_to_params_buffers", False))
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        return f"lipschitz_const={self.lipschitz:g}, monotonic_constraints={self._written_directions()}"


def _rows(constraints: Sequence | Tensor | None, module: nn.Module) -> Tensor:
    """The constraints of monotonicnetworks, (I,), (I, 1) or (I, O), as directions (1, I) or (O, I)."""
    if constraints is None:
        sizes = [part.in_features for part in module.modules() if hasattr(part, "in_features")]
        if not sizes:
            raise ValueError(
                f"{layer_name(module)} does not tell how many inputs it has; give monotonic_constraints (I,)"
            )
        return torch.ones(1, sizes[0], dtype=torch.float64)
    given = as_numbers(constraints)
    if given.dim() not in (1, 2):
        raise ValueError(f"monotonic_constraints have shape (I,) or (I, O), got {tuple(given.shape)}")
    rows = given[None] if given.dim() == 1 else given.T
    inputs = _inputs(module)
    if inputs not in (None, rows.shape[1]):
        raise ValueError(
            f"{layer_name(module)} takes {inputs} inputs, and monotonic_constraints are for {rows.shape[1]}; "
            "give one per input"
        )
    return checked_directions(rows, *rows.shape)


def _inputs(module: nn.Module) -> int | None:
    """How many inputs ``module`` says it takes: its first part may tell, later ones count something else."""
    while is_chain(module) and len(module):
        module = module[0]
    size = getattr(module, "in_features", None)
    return size if isinstance(size, int) and size > 0 else None
