"""Private training of Lipschitz networks without clipping gradients: the engine that keeps all parts together.

One step, on a Poisson sample of rate q:

    theta <- project(inner step of (sum of gradients + N(0, s^2)) / expected batch size),

with s = sigma Delta from the proven sensitivities of the current weights (Bethune et al., ICLR 2024, Algorithm 1).
The weights are results of earlier steps, so public: computing Delta from them anew is adaptive composition and
costs nothing. Projection, momentum, weight decay and schedules only process what is released.

What is promised: the weights after any number of steps are (epsilon, delta)-differentially private for adding or
removing one sample, with epsilon of :meth:`CliplessEngine.get_epsilon`. Public, by assumption: the number of samples
(through q), the architecture, all settings, the initial weights. Not covered: printed losses, rounding in the sum
over the batch, the floating-point form of Gaussian noise (Mironov, CCS 2012), timing, errors that a sample raises (a
label out of range), transformations or collating that make a sample depend on others, and settings chosen by looking
at results on the same data.
"""

import dataclasses
import math
import numbers
import warnings
import weakref
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from lablib.privacy.accounting import Ledger, check_accountant, epsilon, find_noise_multiplier
from lablib.privacy.arguments import refuse_arguments
from lablib.privacy.gathering import PrivateCriterion, PrivateModule
from lablib.privacy.loader import PoissonLoader, check_loader, epoch_steps
from lablib.privacy.losses import loss_lipschitz
from lablib.privacy.noise import NOISES, SAMPLING, Randomness
from lablib.privacy.optimizer import PrivateOptimizer, check_optimizer
from lablib.privacy.projections import check_constraint
from lablib.privacy.run import Run, Settings
from lablib.privacy.sensitivity import Sensitivity

SIZES = ("expected_batch_size", "max_physical_batch")
OPTIONS = ("loss_clip", "noise", "constraint", "input_shape")
_OWNED: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # every layer with parameters that has an engine


class CliplessEngine:
    """Makes one module's training private, and keeps the ledger of what it costs. In the shape of Opacus's engine:

        engine = CliplessEngine()
        model, optimizer, criterion, loader = engine.make_private(
            module=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), criterion=CrossEntropy(16.0),
            data_loader=loader, noise_multiplier=1.0)
        for x, y in loader:
            criterion(model(x), y).backward()
            optimizer.step()
        engine.get_epsilon(delta=1e-5)

    ``zero_grad()`` is allowed anywhere and needed nowhere.

    Args:
        accountant: the default of :meth:`get_epsilon`, and the one that enforces a target; see
            :data:`lablib.privacy.accounting.ACCOUNTANTS`.
        seed: None takes noise and samples from the system's entropy. A whole number makes the run repeatable, and
            not private from anyone who knows it; it is part of :meth:`state_dict`.

    Raises:
        ValueError: for an unknown accountant or a seed that is no whole number from 0 on.
    """

    def __init__(self, *, accountant: str = "pld", seed: int | None = None, **unknown: Any) -> None:
        refuse_arguments(unknown, ("accountant", "seed"), "CliplessEngine")
        check_accountant(accountant)
        self.accountant = accountant
        self._randomness = Randomness(seed)
        self._run: Run | None = None

    def __repr__(self) -> str:
        if self._run is None:
            return f"CliplessEngine(accountant={self.accountant!r}, no run yet)"
        settings = self._run.settings
        return (
            f"CliplessEngine(accountant={self.accountant!r}, noise_multiplier={settings.noise_multiplier:.4g}, "
            f"sample_rate={settings.sample_rate:.4g}, steps={self._run.ledger.steps})"
        )

    @property
    def ledger(self) -> Ledger:
        """What was spent, a copy."""
        return Ledger(self._run.ledger.entries()) if self._run else Ledger()

    @property
    def noise_multiplier(self) -> float:
        """sigma of the run, given or found for the target."""
        return self._running().settings.noise_multiplier

    def get_epsilon(self, delta: float, accountant: str | None = None) -> float:
        """Return the epsilon spent so far, 0 before the first step.

        Raises:
            ValueError, ImportError: as :func:`~lablib.privacy.accounting.epsilon`.
        """
        return epsilon(self.ledger, delta, accountant or self.accountant)

    def sensitivity(self) -> Sensitivity:
        """Return the sensitivities of the current weights; per sample, in the units of the summed gradient."""
        return self._running().measure()

    def state_dict(self) -> dict[str, Any]:
        """Return ledger and settings as plain lists and numbers; weights and optimizer have states of their own."""
        run = self._running()
        return {"ledger": run.ledger.to_list(), "settings": run.settings.to_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken: after make_private with the same settings, before any step.

        Steps that were taken after that are not in its ledger: nothing of them may have been seen or kept. (With
        the same seed they are taken again just as they were.)

        Raises:
            ValueError: for a state of other settings, a damaged one, or if this engine has taken steps itself.
        """
        run = self._running()
        if not isinstance(state, dict) or not isinstance(state.get("settings"), dict):
            raise ValueError("this is no state of an engine; give what state_dict() returned")
        stored, own = state["settings"], run.settings.to_dict()
        found = (
            own["target_epsilon"] is not None
        )  # then sigma is the result of a search, which may end elsewhere
        for key, value in own.items():
            if stored.get(key) != value and not (found and key == "noise_multiplier"):
                raise ValueError(
                    f"the state is of a run with {key} {stored.get(key)!r}, this one has {value!r}; call "
                    "make_private with what it had then"
                )
        if run.ledger.steps:
            raise ValueError(
                f"this engine has taken {run.ledger.steps} steps, which the state would forget; resume in a new one"
            )
        ledger = Ledger(state.get("ledger", ()))
        if found:
            sigma = _finite(stored.get("noise_multiplier"), "the noise multiplier")
            whole = Ledger(ledger.entries())
            whole.add(sigma, run.settings.sample_rate, max(0, run.settings.last_step - ledger.steps))
            if epsilon(whole, own["target_delta"], self.accountant) > own["target_epsilon"]:
                raise ValueError(
                    "the state would pass the target epsilon; it is damaged, or of another accountant"
                )
            run.settings = dataclasses.replace(run.settings, noise_multiplier=sigma)
        run.ledger = ledger

    def make_private(
        self,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        criterion: nn.Module,
        data_loader: DataLoader,
        noise_multiplier: float,
        loss_clip: float | None = None,
        noise: str = "global",
        constraint: str | None = "orthonormal",
        expected_batch_size: int | None = None,
        max_physical_batch: int | None = None,
        input_shape: tuple[int, ...] | None = None,
        **unknown: Any,
    ) -> tuple[PrivateModule, PrivateOptimizer, PrivateCriterion, PoissonLoader]:
        """Return module, optimizer, criterion and loader of a private run.

        The weights of ``module`` are projected at once and after each step; train on the returned ones.

        Args:
            module: what :func:`~lablib.privacy.sensitivity` supports, beginning with ``ClipNorm``.
            optimizer: of exactly the trained parameters of ``module``.
            criterion: a loss of :mod:`lablib.privacy.losses`.
            data_loader: whose data set, collating and workers are used; its sampler becomes Poisson sampling.
            noise_multiplier: sigma; 0 trains without noise, and without privacy.
            loss_clip: C: each sample's cotangent at the outputs is clipped to min(L, C), which lowers the noise.
            noise: ``"global"``, ``"per-layer"`` or ``"balanced"``, see :func:`~lablib.privacy.noise.noise_scales`;
                all cost the same.
            constraint: of :func:`~lablib.privacy.project`.
            expected_batch_size: logical batch size and divisor, default that of ``data_loader``.
            max_physical_batch: the most samples in memory at once; the guarantee does not depend on it.
            input_shape: of one sample as ``module`` takes it, default that of the loader's first tensor.

        Raises:
            ValueError: for anything without a proven bound, a module that has an engine, arguments out of range.
            TypeError: for an argument that is not known; it says what stands for those of Opacus.
        """
        refuse_arguments(unknown, ("noise_multiplier", *SIZES, *OPTIONS), "make_private")
        return self._make(
            self._check_sizes(data_loader, expected_batch_size, max_physical_batch),
            module=module,
            optimizer=optimizer,
            criterion=criterion,
            data_loader=data_loader,
            noise_multiplier=noise_multiplier,
            loss_clip=loss_clip,
            noise=noise,
            constraint=constraint,
            max_physical_batch=max_physical_batch,
            input_shape=input_shape,
        )

    def make_private_with_epsilon(
        self,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        criterion: nn.Module,
        data_loader: DataLoader,
        target_epsilon: float,
        target_delta: float,
        epochs: int,
        expected_batch_size: int | None = None,
        max_physical_batch: int | None = None,
        **others: Any,
    ) -> tuple[PrivateModule, PrivateOptimizer, PrivateCriterion, PoissonLoader]:
        """Return the same as :meth:`make_private`, with the noise that ``epochs`` epochs need for the target.

        The loader ends by itself after their last step, and a further ``step()`` raises :class:`BudgetSpent`.

        Args:
            target_epsilon, target_delta: at the end epsilon is at most the target, by this engine's accountant.
            epochs: whole number from 1 on.
            module, optimizer, criterion, data_loader, others: as in :meth:`make_private`.

        Raises:
            ValueError: as :meth:`make_private` and :func:`~lablib.privacy.accounting.find_noise_multiplier`.
            ImportError: without the extra ``private``.
            TypeError: for an argument that is not known.

        Warns:
            UserWarning: for a delta that would allow to publish a sample outright, 1 / samples or more.
        """
        if "noise_multiplier" in others:
            raise ValueError("the noise multiplier follows from the target epsilon; give one of the two")
        targets = ("target_epsilon", "target_delta", "epochs")
        refuse_arguments(others, (*targets, *SIZES, *OPTIONS), "make_private_with_epsilon")
        size = self._check_sizes(data_loader, expected_batch_size, max_physical_batch)
        rate = size / len(data_loader.dataset)
        last = _whole(epochs, "epochs") * epoch_steps(rate)
        sigma = find_noise_multiplier(target_epsilon, target_delta, rate, last, self.accountant)
        samples = len(data_loader.dataset)
        if target_delta >= 1 / samples:
            warnings.warn(
                f"a target_delta of {target_delta:g} for {samples} samples also allows to publish one sample "
                "outright; take one well below 1 / samples",
                stacklevel=2,
            )
        target = (float(target_epsilon), float(target_delta), last)
        return self._make(
            size,
            module=module,
            optimizer=optimizer,
            criterion=criterion,
            data_loader=data_loader,
            noise_multiplier=sigma,
            max_physical_batch=max_physical_batch,
            target=target,
            **others,
        )

    def _make(
        self,
        size: int,
        *,
        module: nn.Module,
        optimizer: Optimizer,
        criterion: nn.Module,
        data_loader: DataLoader,
        noise_multiplier: float,
        loss_clip: float | None = None,
        noise: str = "global",
        constraint: str | None = "orthonormal",
        max_physical_batch: int | None = None,
        input_shape: tuple[int, ...] | None = None,
        target: tuple[float, float, int] | tuple[None, None, None] = (None, None, None),
    ) -> tuple[PrivateModule, PrivateOptimizer, PrivateCriterion, PoissonLoader]:
        if self._run is not None:
            raise ValueError("this engine keeps the ledger of another module; make one engine for each run")
        if not isinstance(module, nn.Module):
            raise ValueError(f"the module is a torch.nn.Module, not {type(module).__name__}")
        layers = [part for part in module.modules() if part._parameters]
        if any(part in _OWNED for part in layers):
            raise ValueError(
                "the module has an engine already, whose ledger counts its steps; go on with that one, or make a "
                "new module (a copy of this one would start from weights that cost privacy)"
            )
        if noise not in NOISES:
            raise ValueError(f"noise is one of {', '.join(NOISES)}, not {noise!r}")
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("the module has no parameters to train; call requires_grad_(True) on some")
        check_optimizer(optimizer, trained)
        samples = len(data_loader.dataset)
        settings = Settings(
            noise_multiplier=_finite(noise_multiplier, "the noise multiplier"),
            sample_rate=size / samples,
            expected_batch_size=size,
            samples=samples,
            noise=noise,
            constraint=check_constraint(constraint),
            loss_bound=loss_lipschitz(criterion, loss_clip),
            seed=self._randomness.seed,
            target_epsilon=target[0],
            target_delta=target[1],
            last_step=target[2],
            parameters=tuple((name, tuple(p.shape)) for name, p in trained.items()),
        )
        run = Run(module, optimizer, settings, self._randomness)
        loader = PoissonLoader(
            data_loader,
            size,
            max_physical_batch=max_physical_batch,
            gathering=run.gathering,
            generator=lambda step: self._randomness.generator(SAMPLING, step),
            steps=lambda: run.ledger.steps,
            spent=lambda: run.spent,
        )
        run.begin(tuple(input_shape) if input_shape is not None else _first_shape(loader.blank))
        self._run = run
        _OWNED.update(layers)
        return (
            PrivateModule(module, run.admit, run.gathering),
            PrivateOptimizer(optimizer, run.release),
            PrivateCriterion(criterion, size, settings.loss_bound),
            loader,
        )

    def _running(self) -> Run:
        if self._run is None:
            raise ValueError("the engine has no run yet; call make_private first")
        return self._run

    @staticmethod
    def _check_sizes(loader: DataLoader, expected: int | None, physical: int | None) -> int:
        """Return the logical batch size."""
        check_loader(loader)
        if expected is None and loader.batch_size is None:
            raise ValueError("the loader has no batch size; give expected_batch_size")
        size = _whole(loader.batch_size if expected is None else expected, "the expected batch size")
        if size > len(loader.dataset):
            raise ValueError(
                f"batches of {size} expected from {len(loader.dataset)} samples; give an expected_batch_size of at "
                "most their number"
            )
        if physical is not None:
            _whole(physical, "max_physical_batch")
        return size


def _first_shape(batch: Any) -> tuple[int, ...]:
    """Return the shape of a sample in the first tensor of a batch."""
    while not isinstance(batch, Tensor):
        if not batch:
            raise ValueError(
                "the loader's batches begin with no tensor; give input_shape, the shape of one sample"
            )
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch))
    return tuple(batch.shape[1:])


def _whole(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{what} is a whole number from 1 on, not {value!r}")
    return int(value)


def _finite(value: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
        raise ValueError(f"{what} is a finite number from 0 on, not {value!r}")
    return float(value)
