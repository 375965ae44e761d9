"""One private run: which forward passes are admitted, and what a step releases."""

import dataclasses
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lablib.ops.conv_norms import bound_conv_norm
from lablib.ops.norms import bound_matrix_norm
from lablib.privacy.accounting import Ledger
from lablib.privacy.gathering import Gathering, Ticket
from lablib.privacy.noise import GAUSSIAN, Randomness, gaussian, noise_scales
from lablib.privacy.projections import project
from lablib.privacy.sensitivity import Sensitivity, sensitivity, surroundings
from lablib.privacy.watch import Watch


class BudgetSpent(ValueError):
    """A step that would pass the target epsilon."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that the guarantee of a run rests on, as plain values: a state is resumed only under equal ones."""

    noise_multiplier: float
    sample_rate: float
    expected_batch_size: int
    samples: int
    noise: str
    constraint: str | None
    loss_bound: float
    seed: int | None
    target_epsilon: float | None
    target_delta: float | None
    last_step: int | None
    parameters: tuple[tuple[str, tuple[int, ...]], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return dicts, lists, strings, numbers and None."""
        return dataclasses.asdict(self) | {
            "parameters": [[name, list(shape)] for name, shape in self.parameters]
        }


class Run:
    """The module in training, its ledger, and what the batch at work has given.

    Attributes:
        ledger: steps taken.
        gathering: what the batch at work has given.
        settings: of the run.
    """

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, settings: Settings, randomness: Randomness
    ) -> None:
        self.settings, self.ledger, self.gathering = settings, Ledger(), Gathering()
        self._module, self._optimizer, self._randomness = module, optimizer, randomness
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._held = _held(optimizer)
        self._warned = False

    def begin(self, input_shape: tuple[int, ...]) -> None:
        """Measure the module on samples of ``input_shape``, then project it.

        Raises:
            ValueError: where no sensitivity is proven; nothing is changed then.
        """
        _check_alone()
        self._shape = input_shape
        sensitivity(self._module, input_shape, self.settings.loss_bound)
        self._project()
        for parameter in self._trained.values():
            parameter.grad = None  # left over from other losses

    @property
    def spent(self) -> bool:
        """Whether a further step would pass the target."""
        return self.settings.last_step is not None and self.ledger.steps >= self.settings.last_step

    def measure(self) -> Sensitivity:
        """Return the sensitivities of the current weights, which are those of the batch at work if there is one."""
        if self.gathering.bounds is not None:
            self._check_unchanged()
            return self.gathering.bounds
        if self._watch.sees_change(self._module):
            self._norms = _within_one(self._module) if self.settings.constraint else {}
            self._watch = Watch(self._module)
        return sensitivity(self._module, self._shape, self.settings.loss_bound, norms=self._norms)

    def admit(self, module: nn.Module, x: Tensor) -> Ticket:
        """Bound the gradient of a forward pass of ``module`` on samples ``x`` (B, ...), and let it in.

        Raises:
            ValueError: for samples that were not drawn, or a module without proven bounds.
        """
        if not isinstance(x, Tensor) or x.dim() < 2:
            raise ValueError("the private module takes one tensor of samples (B, ...)")
        self._check_dtype(x)
        if module is not self._module:
            raise ValueError("the module inside was replaced (also by a compiled one); make a new run for it")
        if not module.training:  # ClipNorm lets NaN through then
            raise ValueError(
                "the module inside is in evaluation mode; call model.train() on the returned one"
            )
        ticket = self.gathering.admit(len(x), self.settings.loss_bound)
        self._check_unchanged()
        shape = tuple(x.shape[1:])
        if self.gathering.bounds is None:
            self._shape = shape
            self.gathering.bounds = self.measure()
            self._surroundings = surroundings(self._module)
        elif shape != self._shape:
            raise ValueError("the parts of one batch have samples of different shapes; make them the same")
        return ticket

    @torch.no_grad()
    def release(self) -> None:
        """Add noise, take the inner step, project, and count it; before the last part of a batch do nothing.

        Raises:
            BudgetSpent: if the step would pass the target.
            ValueError: if there is no batch, or what was collected has no proven bound.
        """
        if self.spent:
            raise BudgetSpent(
                f"epsilon {self.settings.target_epsilon:g} at delta {self.settings.target_delta:g} is spent after "
                f"{self.ledger.steps} steps; a further one would pass it"
            )
        if not self.gathering.drawn:
            raise ValueError("step() without a batch; draw one from the returned loader before each step")
        if not self.gathering.complete:
            return
        self._check_unchanged()
        self._check_optimizer()
        self._warn_of_no_gradient()
        bounds = self.gathering.bounds or self.measure()
        sums, settings = self.gathering.sums, self.settings
        sizes = {name: p.numel() for name, p in self._trained.items()}
        scales = noise_scales(bounds, sizes, settings.noise_multiplier, settings.noise)
        generator = self._randomness.generator(GAUSSIAN, self.ledger.steps)
        # counted first: whatever stops the step after this line, nothing is released that was not
        self.ledger.add(settings.noise_multiplier, settings.sample_rate)
        self.gathering.close()
        try:
            for name, parameter in self._trained.items():
                total = gaussian(parameter, scales[name], generator)
                if name in sums:
                    total += sums[name]
                parameter.grad = total.div_(settings.expected_batch_size)
            self._optimizer.step()
        finally:
            for parameter in self._trained.values():
                parameter.grad = None
        self._project()

    def _project(self) -> None:
        self._norms = project(self._module, self.settings.constraint)
        self._watch = Watch(self._module)

    def _check_unchanged(self) -> None:
        """Refuse other parameters at any time, and other numbers between the first forward pass and the step."""
        _check_alone()
        now = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        if now.keys() != self._trained.keys() or any(now[name] is not p for name, p in self._trained.items()):
            raise ValueError(
                "the trained parameters are no longer those of make_private (replaced, added, frozen or thawed); "
                "make a new run for them"
            )
        if self.gathering.bounds is None:
            return
        if self._watch.sees_change(self._module):
            raise ValueError(
                "weights or layers were changed between a forward pass and its step; change them after step()"
            )
        if surroundings(self._module) != self._surroundings:
            raise ValueError(
                "torch's settings of precision were changed between a forward pass and its step; change them after "
                "step()"
            )

    def _check_dtype(self, x: Tensor) -> None:
        wanted = next(iter(self._trained.values())).dtype
        if x.dtype == wanted:
            return
        if not x.is_floating_point():
            raise ValueError(
                f"samples of {x.dtype} are no features; convert and scale them first, images of whole numbers by "
                f"x.to({wanted}) / 255"
            )
        raise ValueError(
            f"the samples are in {x.dtype}, the weights in {wanted}; convert the data set by x.to({wanted})"
        )

    def _warn_of_no_gradient(self) -> None:
        """Say once that a step is about to be paid for and learn nothing."""
        if self._warned or self.gathering.used:
            return
        self._warned = True
        warnings.warn(
            "step() on a batch without a backward pass costs privacy and adds only noise; call "
            "criterion(model(x), y).backward() before it, in training mode (model.train())",
            stacklevel=5,
        )

    def _check_optimizer(self) -> None:
        if _held(self._optimizer) != self._held:
            raise ValueError("parameters were added to or taken from the optimizer; make a new run for them")
        for name, parameter in self._trained.items():
            if parameter.grad is not None and not self._module.training:
                raise ValueError(
                    "the gradient is of the module in evaluation mode, which the engine does not collect; call "
                    "model.train() before training on, and zero_grad() for what came so far"
                )
            if parameter.grad is not None:
                raise ValueError(
                    f"{name} has a .grad that did not come through the private module; use the returned module and "
                    "criterion, and call zero_grad() after any other backward()"
                )


def _within_one(module: nn.Module) -> dict[str, float]:
    """Return 1.0, as a projection does, for each trained weight whose norm is no larger.

    Weights that were loaded from a checkpoint of the run get the same noise as in the run itself by this.
    """
    norms = {}
    for name, part in module.named_modules():
        if type(part) in (nn.Linear, nn.Conv2d) and part.weight.requires_grad:
            weight = part.weight.detach()
            matrix = weight.dim() == 2
            bound = bound_matrix_norm(weight, "l2") if matrix else bound_conv_norm(weight, "l2", part.stride)
            if bound <= 1.0:
                norms[f"{name}.weight" if name else "weight"] = 1.0
    return norms


def _held(optimizer: Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


def _check_alone() -> None:
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise ValueError(
            "the engine keeps one ledger in one process; train privately without torch.distributed"
        )
