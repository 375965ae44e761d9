"""How gradients are collected: only through the private module, only those of its criterion, each batch once.

The parameters enter the forward pass through a tap, which keeps what flows back to them and lets nothing through
to ``.grad``. The outputs leave through a gate, which lets back exactly the cotangents of the private criterion,
clipped per sample, and refuses any other: a loss that was scaled by something the batch decides, or to which
another term was added, would make one sample's gradient depend on the others.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from lablib.layers.base import Fixed
from lablib.layers.per_sample import clip_norm
from lablib.privacy.losses import check_loss
from lablib.privacy.sensitivity import Sensitivity


@dataclasses.dataclass(eq=False)
class Ticket:
    """The right of one forward pass to give its gradient once."""

    batch: int
    part: int
    bound: float  # of each sample's cotangent
    outputs: Tensor | None = None  # as the module gave them
    cotangent: Tensor | None = None  # what the private criterion sends back, set when it is called


class Gathering:
    """What the logical batch now at work has given.

    Attributes:
        sums: of per-sample gradients, by parameter name.
        bounds: the sensitivities of all its forward passes, None before the first.
        complete: whether the last of its physical batches was drawn.
    """

    def __init__(self) -> None:
        self._batch = 0
        self.close()

    def close(self) -> None:
        """Forget what was collected; no gradient of this batch counts any more."""
        self.sums: dict[str, Tensor] = {}
        self.bounds: Sensitivity | None = None
        self.complete = False
        self._sizes: list[int] = []
        self._given: set[int] = set()
        self._batch += 1

    @property
    def drawn(self) -> bool:
        """Whether a batch is drawn that no step has used."""
        return bool(self._sizes)

    @property
    def used(self) -> bool:
        """Whether all that was drawn is empty, or gave a gradient."""
        return bool(self._given) or not any(self._sizes)

    def draw(self, size: int, last: bool) -> None:
        """Note a physical batch of ``size`` samples; ``last`` completes the logical one."""
        self._sizes.append(size)
        self.complete = last

    def admit(self, size: int, bound: float) -> Ticket:
        """Return the ticket of a forward pass with ``size`` samples, for cotangents of norm up to ``bound``.

        Raises:
            ValueError: unless this is the size of the physical batch drawn last.
        """
        if not self._sizes:
            raise ValueError(
                "no batch is drawn that a step has not used; take batches from the returned loader, one step() "
                "each, and call eval() or torch.no_grad() for anything else"
            )
        if size != self._sizes[-1]:
            raise ValueError(
                f"the loader drew {self._sizes[-1]} samples but the module got {size}; train on the batches of "
                "the returned loader as they are, and call eval() or torch.no_grad() for anything else"
            )
        return Ticket(self._batch, len(self._sizes) - 1, bound)

    def collect(self, ticket: Ticket, gradients: dict[str, Tensor]) -> None:
        """Add the gradients of one backward pass.

        Raises:
            ValueError: if this batch gave its gradient before, or its step is over.
        """
        if ticket.batch != self._batch:
            raise ValueError("backward() after the step of its batch; call step() last")
        if ticket.part in self._given:
            raise ValueError(
                "a second backward pass on one batch would count its samples twice; call backward() once for each "
                "batch, and step() after it"
            )
        self._given.add(ticket.part)
        for name, gradient in gradients.items():
            # not in place: autograd may give one tensor to two parameters
            self.sums[name] = self.sums[name] + gradient if name in self.sums else gradient


class _Tap(torch.autograd.Function):
    """Parameters in, the same out; gradients go to the gathering, none to the parameters."""

    @staticmethod
    def forward(ctx, gathering: Gathering, ticket: Ticket, names: tuple[str, ...], *parameters: Tensor):
        ctx.gathering, ctx.ticket, ctx.names = gathering, ticket, names
        ctx.set_materialize_grads(False)
        return tuple(parameter.detach() for parameter in parameters)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        found = {name: g for name, g in zip(ctx.names, gradients) if g is not None}
        ctx.gathering.collect(ctx.ticket, found)
        return (None,) * (3 + len(gradients))


class _Gate(torch.autograd.Function):
    """The outputs; back go the cotangents of the private criterion and no others."""

    @staticmethod
    def forward(ctx, outputs: Tensor, ticket: Ticket) -> Tensor:
        ctx.ticket = ticket
        return outputs.view_as(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        if torch.is_autocast_enabled(gradient.device.type):
            raise ValueError("autocast lowers the precision of backward(); call it outside of autocast")
        own = ctx.ticket.cotangent
        if own is None or not torch.equal(gradient, own):
            raise ValueError(
                "the gradient at the module's outputs is not that of the returned criterion: give it the outputs as "
                "they are, and call backward() on its value alone; factors belong into the learning rate"
            )
        return own, None


class _Loss(torch.autograd.Function):
    """A value with known cotangents."""

    @staticmethod
    def forward(ctx, outputs: Tensor, value: Tensor, cotangent: Tensor) -> Tensor:
        ctx.save_for_backward(cotangent)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        (cotangent,) = ctx.saved_tensors
        return gradient * cotangent, None, None


class PrivateModule(nn.Module):
    """The module under an engine: ``module`` itself for evaluation, its gradients collected in training.

    In training mode with gradients enabled a forward pass takes a batch of the private loader, a tensor (B, ...);
    what flows back is kept by the engine, and ``.grad`` stays None. Otherwise it is the plain module.

    Attributes:
        module: the module given to the engine, which holds the trained weights.
    """

    def __init__(
        self, module: nn.Module, admit: Callable[[nn.Module, Tensor], Ticket], gathering: Gathering
    ) -> None:
        super().__init__()
        self.module = module
        self._admit, self._gathering = admit, gathering

    def __reduce_ex__(self, protocol):
        raise ValueError("a private module is bound to its engine; copy or save its .module instead")

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (B, ...) of samples (B, ...).

        Raises:
            ValueError: in training, for a batch that is not the one drawn, or where no sensitivity is proven.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self.module(x)
        ticket = self._admit(self.module, x)
        if len(x):
            trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
            tapped = _Tap.apply(self._gathering, ticket, tuple(trained), *trained.values())
            outputs = functional_call(self.module, dict(zip(trained, tapped)), (x,))
        else:  # not every layer takes an empty batch
            with torch.no_grad():
                shape = self.module(x.new_zeros(1, *x.shape[1:])).shape[1:]
            outputs = x.new_zeros(0, *shape).requires_grad_()
        ticket.outputs = outputs.detach().clone()
        gated = _Gate.apply(outputs, ticket)
        gated.ticket = ticket
        return gated


class PrivateCriterion(nn.Module):
    """Sum of the per-sample losses over the expected batch size, a public constant; never over the drawn size.

    Back goes each sample's own cotangent, clipped to l2 norm L: the sum's, for the division by the expected batch
    size comes after the noise. Its value is not private; what is printed of it tells about the batch.

    Attributes:
        criterion: the loss given to the engine.
        expected_batch_size: the divisor.
        bound: L.
    """

    bound = Fixed()

    def __init__(self, criterion: nn.Module, expected_batch_size: int, bound: float) -> None:
        super().__init__()
        self.criterion = criterion
        self.expected_batch_size, self.bound = expected_batch_size, bound

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a scalar, of outputs (B, C) and targets as the criterion takes them."""
        ticket = getattr(outputs, "ticket", None)
        if ticket is None or not (outputs.requires_grad and torch.is_grad_enabled()):
            return self.criterion(outputs, targets).sum() / self.expected_batch_size
        check_loss(self.criterion)
        if ticket.bound != self.bound:
            raise ValueError(
                f"the criterion is of a run with cotangents up to {self.bound:g}, the outputs of one up to "
                f"{ticket.bound:g}; use the criterion that make_private returned with the module"
            )
        if not torch.equal(outputs, ticket.outputs):
            raise ValueError("the outputs were changed in place; give the criterion what the module returned")
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            losses = self.criterion(leaf, targets) if len(leaf) else leaf.sum(tuple(range(1, leaf.dim())))
            (cotangent,) = torch.autograd.grad(losses.sum(), leaf)
        ticket.cotangent = clip_norm(cotangent, self.bound)
        value = losses.detach().sum() / self.expected_batch_size
        return _Loss.apply(outputs, value, ticket.cotangent)
