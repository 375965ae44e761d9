"""One visible, resumable training loop, in one process or in many.

A run that is killed at any step and resumed goes on exactly as the run left alone: on CPU bit for bit, for one
number of threads (sums of floats depend on how they are cut).
"""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lablib.train.checkpoint import read_newest, save
from lablib.train.distributed import Ranks
from lablib.train.optimiser import set_rate
from lablib.train.progress import Bar, Log
from lablib.train.sampler import Batch, Sampler
from lablib.train.schedules import Schedule
from lablib.train.signals import wish_to_stop

POLL_STEPS = 10  # how often several processes agree on whether to stop or save


class Moment(NamedTuple):
    """The values of all schedules at one step."""

    lr: float
    p: float
    eps: float
    lam: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to train, and the schedules, each step -> value."""

    steps: int
    lr: Schedule
    p: Schedule
    eps: Schedule
    lam: Schedule

    def at(self, step: int) -> Moment:
        """Return the values at ``step``."""
        return Moment(self.lr(step), self.p(step), self.eps(step), self.lam(step))


class Outcome(NamedTuple):
    """What a loss returns: its mean over the batch, and which samples (b,) are right, and right by the margin asked.

    Both are those of the training form. Where that is random and not Lipschitz (l_p neurons with dropout), its
    margin is a hint of what will be certified, and proves nothing.
    """

    loss: Tensor
    correct: Tensor
    margin: Tensor


class Stateful(Protocol):
    """Anything whose state a checkpoint must hold."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: Any) -> Any: ...


class Run:
    """A training run that can stop and go on.

    ``history`` has one row per epoch: means over its steps of the loss and of the two shares of :class:`Outcome`,
    ``clean`` and ``train_margin``, the schedules at its end, and what ``evaluate`` returned.

    Args:
        model: on its device, in any mode.
        loss: (model, batch, moment) -> :class:`Outcome`; calls the model it is given once.
        sampler: gives the batches of this rank.
        plan: schedules.
        optimiser: of the model's parameters.
        ranks: this process among the others.
        folder: where checkpoints and event files go.
        config: plain nested dict that the run depends on; a checkpoint of another one is refused.
        parts: what else has a state, by name (generators of masks).
        machine: what only the last bits depend on, by name (kernels in use). A checkpoint of another one is taken,
            with a line on stderr.
        prepare: (batch, moment) -> None, called before each step.
        evaluate: () -> {name: value}, called by all ranks after every ``evaluate_epochs`` epochs; must leave no
            trace in model and generators.
        save_seconds, save_steps: a checkpoint is due after so many seconds, or (0: never) steps.
        progress: show a bar.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Batch, Moment], Outcome],
        sampler: Sampler,
        plan: Plan,
        optimiser: torch.optim.Optimizer,
        *,
        ranks: Ranks,
        folder: Path,
        config: Mapping[str, Any],
        parts: Mapping[str, Stateful] | None = None,
        machine: Mapping[str, str] | None = None,
        prepare: Callable[[Batch, Moment], None] = lambda batch, moment: None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        evaluate_epochs: int = 0,
        save_seconds: float = 60.0,
        save_steps: int = 0,
        progress: bool = True,
    ):
        self.model, self.loss, self.sampler, self.plan, self.optimiser = model, loss, sampler, plan, optimiser
        self.ranks, self.folder, self.config = ranks, Path(folder), dict(config)
        self.parts, self.machine, self.prepare = dict(parts or {}), dict(machine or {}), prepare
        self.evaluate, self.evaluate_epochs = evaluate, evaluate_epochs
        self.save_seconds, self.save_steps, self.progress = save_seconds, save_steps, progress
        self.step, self.history = 0, []
        # loss, right, by the margin, and samples since the epoch began, of this rank
        self._tally = torch.zeros(4, dtype=torch.float64, device=ranks.device)
        self._saved_step, self._saved_time = -1, 0.0
        self._earlier_seconds, self._begun = 0.0, None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.plan.steps

    @property
    def seconds(self) -> float:
        """Time spent in training so far, that of earlier sessions included."""
        return self._earlier_seconds + (0.0 if self._begun is None else time.monotonic() - self._begun)

    def go(self, seconds: float | None = None) -> int:
        """Train until the end, ``seconds`` have passed, or a signal asks to stop; then save.

        Returns:
            0, or the number of the signal (SIGINT, SIGTERM). See :attr:`finished` for how far it came.

        Raises:
            ValueError: for a loss that is NaN or infinite; the last good checkpoint is kept.
            OSError: if a checkpoint cannot be written.
        """
        model = self.ranks.wrap(self.model.train())
        bar = Bar(self.plan.steps, self.step, self.progress and self.ranks.first)
        log = Log(self.folder if self.ranks.first else None, self.step)
        self._begun = self._saved_time = time.monotonic()
        try:
            with wish_to_stop() as wish:
                stop = False
                while not self.finished and not stop:
                    moment = self._step(model)
                    if self.step % self.sampler.steps_per_epoch == 0 or self.finished:
                        self._end_epoch(moment, log)
                    if bar.due:
                        numbers = self._numbers(moment)
                        bar.show(self.step, {name.removeprefix("train_"): numbers[name] for name in numbers})
                    if self.ranks.world == 1 or self.step % POLL_STEPS == 0:
                        late = seconds is not None and time.monotonic() - self._begun >= seconds
                        stop = self.ranks.any(bool(wish.signal) or late)
                        if self.ranks.any(self._due()) and not stop:
                            self._save()
                self._save()
                return wish.signal
        finally:
            self._earlier_seconds, self._begun = self.seconds, None
            bar.close(self.step)
            log.close()

    def resume(self) -> bool:
        """Go back to the newest checkpoint of the folder; return whether there was one.

        Raises:
            ValueError: if the run it belongs to had other settings (each is named), or it is damaged.
        """
        state = read_newest(self.folder, "cpu")
        if state is None:
            return False
        check_same(state.get("config", {}), self.config, self.folder)
        self._tell_machine(state.get("machine", {}))
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.sampler.load_state_dict(state["sampler"])
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.history = state["step"], state["history"]
        self._earlier_seconds, self._saved_step = state["seconds"], self.step
        if self.ranks.first:  # sums over all ranks, so one of them holds them
            self._tally.copy_(torch.tensor(state["tally"], dtype=torch.float64))
        return True

    def _tell_machine(self, stored: Mapping[str, str]) -> None:
        """Print a line if the checkpoint was made by another machine: the run goes on, not bit for bit."""
        names = [name for name, value in self.machine.items() if stored.get(name, value) != value]
        if names and self.ranks.first:
            changes = ", ".join(f"{name} {stored[name]} there, {self.machine[name]} here" for name in names)
            print(
                f"resumed by other means ({changes}): the run goes on, though not to the last bit as it would",
                file=sys.stderr,
            )

    def _step(self, model: nn.Module) -> Moment:
        """One step of the optimiser."""
        moment = self.plan.at(self.step)
        batch = self.sampler.next()
        self.prepare(batch, moment)
        set_rate(self.optimiser, moment.lr)
        outcome = self.loss(model, batch, moment)
        self.optimiser.zero_grad(set_to_none=True)
        # gradients are averaged over ranks, whose parts of the batch may differ in size
        (outcome.loss * (len(batch.y) * self.ranks.world / batch.total)).backward()
        self.optimiser.step()
        if len(batch.y):
            size = outcome.loss.new_tensor(float(len(batch.y)))
            sums = (outcome.loss.detach() * size, outcome.correct.sum(), outcome.margin.sum(), size)
            self._tally += torch.stack([value.to(torch.float64) for value in sums])
        self.step += 1
        return moment

    def _numbers(self, moment: Moment) -> dict[str, float]:
        """The epoch so far, of this rank. Raises ValueError for a loss that is not finite."""
        loss, correct, margin, samples = self._tally.tolist()
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} by step {self.step}; lower optim.lr or look at the data, then resume "
                "from the last checkpoint"
            )
        samples = max(samples, 1.0)
        numbers = {"loss": loss / samples, "clean": correct / samples, "train_margin": margin / samples}
        return {"p": moment.p} | numbers

    def _end_epoch(self, moment: Moment, log: Log) -> None:
        self.ranks.total(self._tally)
        numbers = self._numbers(moment) | moment._asdict()
        self._tally.zero_()
        epochs = -(-self.step // self.sampler.steps_per_epoch)
        if self.evaluate is not None and self.evaluate_epochs and epochs % self.evaluate_epochs == 0:
            self.model.eval()
            numbers |= self.evaluate()
            self.model.train()
        log.add({name: value for name, value in numbers.items() if math.isfinite(value)}, self.step)
        # plain JSON has no infinity
        plain = {name: value if math.isfinite(value) else str(value) for name, value in numbers.items()}
        self.history.append({"epoch": epochs, "step": self.step, "seconds": round(self.seconds, 2)} | plain)

    def _due(self) -> bool:
        if not self.ranks.first:
            return False
        steps = self.step - max(self._saved_step, 0)
        return (self.save_steps > 0 and steps >= self.save_steps) or (
            time.monotonic() - self._saved_time >= self.save_seconds
        )

    def _save(self) -> None:
        """Write a checkpoint. All ranks must call it."""
        if self.step == self._saved_step:
            return
        self.ranks.total(self._tally)
        self._numbers(self.plan.at(self.step))  # no checkpoint of a run that has broken down
        if self.ranks.first:
            save(self.folder, self._state())
        else:
            self._tally.zero_()
        self._saved_step, self._saved_time = self.step, time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "machine": self.machine,
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "tally": self._tally.tolist(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "sampler": self.sampler.state_dict(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "torch_rng": torch.get_rng_state(),
        }


def check_same(stored: Mapping[str, Any], asked: Mapping[str, Any], folder: Path) -> None:
    """Raise ValueError unless two configs are equal; the message names each setting that differs."""
    before, now = flatten(stored), flatten(asked)
    differing = [
        f"{name}: {before.get(name, 'not set')!r} there, {now.get(name, 'not set')!r} here"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, ...) != now.get(name, ...)
    ]
    if differing:
        raise ValueError(
            f"the run in {folder} has other settings ({'; '.join(differing)}); ask for the same ones, or for "
            "another folder"
        )


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names, tuples as lists.

    >>> flatten({"model": {"width": 8, "sizes": (1, 2)}})
    {'model.width': 8, 'model.sizes': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = list(value) if isinstance(value, tuple) else value
    return flat
