"""A training run from a config to its result: data, model, loss, loop, means, certificate, files."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lablib.data import Dataset, load
from lablib.experiments.baselines import BoxReLU, LinearSorting
from lablib.experiments.training_config import Config, Model, from_plain
from lablib.layers import SortConv, SortHybrid, SortMLP, SubsetSource, recompute_means
from lablib.ops.native import kernels
from lablib.train import checkpoint
from lablib.train.distributed import Ranks
from lablib.train.losses import ce_hinge, mixture, worst_case
from lablib.train.optimiser import adamw
from lablib.train.run import Moment, Outcome, Plan, Run
from lablib.train.sampler import Batch, Sampler, share
from lablib.train.schedules import cosine, exponential, p_schedule, smooth_ramp

# Mean per channel and one std for all channels, of the training images in [0, 1].
STATISTICS = {
    "digits": ((0.3053,), 0.3761),
    "mnist": ((0.1307,), 0.3081),
    "cifar10": ((0.4914, 0.4822, 0.4465), 0.2009),
}
MODEL_FILE = "model.pt"
EVALUATION_BATCH = 500


def runs_dir() -> Path:
    """Return where runs keep checkpoints: ``runs/`` at the root of the checkout, or ``LABLIB_RUNS``."""
    root = os.environ.get("LABLIB_RUNS")
    return Path(root) if root else Path(__file__).resolve().parents[2] / "runs"


def build_model(config: Model, shape: tuple[int, int, int], classes: int, data: str) -> nn.Module:
    """Return an untrained model for images of ``shape`` (C, H, W), normalised as the data set ``data``."""
    mean, std = STATISTICS[data]
    features, common = int(np.prod(shape)), {"classes": classes, "mean": mean, "std": std}
    sorting = {"keep": config.keep, "top": config.top}
    size = (config.width, config.depth)
    makers = {
        "mlp": lambda: SortMLP(features, *size, identity=config.identity, **sorting, **common),
        "hybrid": lambda: SortHybrid(
            features, *size, identity=config.identity, hidden=config.hidden, **sorting, **common
        ),
        "conv": lambda: SortConv(
            shape[0],
            shape[1],
            *size,
            stride=min(4, (shape[1] - 1) // 2),
            hidden=config.hidden,
            **sorting,
            **common,
        ),
        "groupsort": lambda: LinearSorting(features, *size, "groupsort", **common),
        "abs": lambda: LinearSorting(features, *size, "abs", **common),
        "ibp": lambda: BoxReLU(features, *size, **common),
    }
    if config.kind not in makers:
        raise ValueError(f"model.kind is one of {', '.join(makers)}, got {config.kind!r}")
    return makers[config.kind]()


def plan_of(config: Config, steps_per_epoch: int) -> Plan:
    """Return the schedules of a run, in steps."""

    def steps(epochs: float) -> int:
        return round(epochs * steps_per_epoch)

    total, begin = steps(config.optim.epochs), steps(config.p.begin)
    growing = max(1, steps(config.p.end) - begin)
    return Plan(
        total,
        lr=cosine(config.optim.lr, total),
        p=p_schedule(config.p.start, config.p.stop, begin, growing, config.p.grid),
        eps=smooth_ramp(config.loss.eps, steps(config.loss.eps_end)),
        lam=exponential(config.loss.lam, config.loss.lam_end, growing, begin),
    )


class LossFunction:
    """The loss of a config on a model: (model or its distributed wrapper, batch, moment) -> :class:`Outcome`.

    ``Outcome.margin`` counts what the margin (or worst difference) of the training form would certify at ``eps``,
    were that form what is certified: no proof.
    """

    def __init__(self, config: Config, model: nn.Module):
        makers = {"mixture": self._mixture, "ce_hinge": self._ce_hinge, "worst_case": self._worst_case}
        needs_box = config.loss.kind != "mixture"
        if config.loss.kind not in makers:
            raise ValueError(f"loss.kind is one of {', '.join(makers)}, got {config.loss.kind!r}")
        if needs_box == hasattr(model, "lipschitz"):
            fitting = "mixture" if needs_box else "ce_hinge or worst_case"
            raise ValueError(
                f"loss.kind={config.loss.kind} does not go with model.kind={config.model.kind}; use {fitting}"
            )
        if config.loss.kind == "ce_hinge" and not hasattr(model, "scale"):
            raise ValueError(
                f"loss.kind=ce_hinge does not go with model.kind={config.model.kind}; use worst_case"
            )
        self._config, self._model, self._loss = config, model, makers[config.loss.kind]

    def __call__(self, net: nn.Module, batch: Batch, moment: Moment) -> Outcome:
        return self._loss(net, batch, moment)

    def _mixture(self, net: nn.Module, batch: Batch, moment: Moment) -> Outcome:
        logits, constant = net(batch.x), self._model.lipschitz
        value = mixture(logits, batch.y, moment.eps * constant, moment.lam, self._model.scale)
        own = logits.detach().gather(1, batch.y[:, None])
        margin = (own - logits.detach().scatter(1, batch.y[:, None], -torch.inf)).amin(1)
        return Outcome(value, margin > 0.0, margin > 2.0 * constant * self._config.eps)

    def _ce_hinge(self, net: nn.Module, batch: Batch, moment: Moment) -> Outcome:
        logits, worst = net(batch.x, batch.y, moment.eps)
        return self._boxed(
            ce_hinge(logits, worst, batch.y, moment.lam, self._model.scale), logits, worst, batch
        )

    def _worst_case(self, net: nn.Module, batch: Batch, moment: Moment) -> Outcome:
        logits, worst = net(batch.x, batch.y, moment.eps)
        return self._boxed(worst_case(logits, worst, batch.y, 1.0 - moment.lam), logits, worst, batch)

    def _boxed(self, value: Tensor, logits: Tensor, worst: Tensor, batch: Batch) -> Outcome:
        safe = worst.detach().scatter(1, batch.y[:, None], -torch.inf).amax(1) < 0.0
        return Outcome(value, logits.detach().argmax(1) == batch.y, safe)


class Training:
    """One run of a config: what ``lablib train`` makes, trains and certifies.

    Args:
        name, mode, seed: of the run, for its files.
        config: settings.
        ranks: this process among the others.
        folder: of checkpoints.
        progress, save_steps: see :class:`lablib.train.run.Run`.
    """

    def __init__(
        self,
        name: str,
        mode: str,
        config: Config,
        seed: int,
        ranks: Ranks,
        folder: Path,
        *,
        progress: bool = True,
        save_steps: int = 0,
        save_seconds: float = 60.0,
    ):
        self.name, self.mode, self.config, self.seed, self.ranks, self.folder = (
            name, mode, config, seed, ranks, folder,
        )  # fmt: skip
        data = load(config.data.name)
        self.data = data
        device = ranks.device
        rows, test = config.data.train or len(data.x_train), config.data.test or len(data.x_test)
        first = min(rows, len(data.x_train)) - config.data.held_out  # of the rows held out
        if first < 1:
            raise ValueError(
                f"data.held_out={config.data.held_out} leaves no row to train on; give less, or more in data.train"
            )
        images, labels = (torch.from_numpy(a[:rows]).to(device) for a in (data.x_train, data.y_train))
        (self.x, self.y), (self.x_held, self.y_held) = (
            (images[part], labels[part]) for part in (slice(first), slice(first, None))
        )
        self.x_test, self.y_test = (torch.from_numpy(a[:test]).to(device) for a in (data.x_test, data.y_test))
        torch.manual_seed(seed)
        self.model = self._build(config, data).to(device)
        parts = {}
        if hasattr(self.model, "subsets"):
            self.model.subsets = parts["subsets"] = SubsetSource(10_000 + seed, device)
        self.sampler = Sampler(
            self.x, self.y, scale=data.scale, batch=config.optim.batch, seed=seed, pad=config.data.pad,
            flip=config.data.flip, rank=ranks.rank, world=ranks.world,
        )  # fmt: skip
        optim = config.optim
        self.run = Run(
            self.model,
            LossFunction(config, self.model),
            self.sampler,
            plan_of(config, self.sampler.steps_per_epoch),
            adamw(self.model.groups(), optim.lr, optim.decay, (optim.beta1, optim.beta2), optim.epsilon),
            ranks=ranks,
            folder=folder,
            config=self.identity(),
            parts=parts,
            machine={"kernels": kernels()} if device.type == "cpu" else {},
            prepare=self._prepare,
            evaluate=self._held_out if config.data.held_out else None,
            evaluate_epochs=config.evaluate,
            save_steps=save_steps,
            save_seconds=save_seconds,
            progress=progress,
        )

    @staticmethod
    def _build(config: Config, data: Dataset) -> nn.Module:
        return build_model(config.model, data.x_train.shape[1:], len(data.class_names), config.data.name)

    def identity(self) -> dict[str, Any]:
        """Return all that the numbers of the run depend on; a checkpoint of another identity is refused."""
        plain = json.loads(json.dumps(dataclasses.asdict(self.config)))
        run = {"name": self.name, "mode": self.mode, "seed": self.seed, "device": self.ranks.device.type}
        return {"run": run} | {"config": plain}

    def _prepare(self, batch: Batch, moment: Moment) -> None:
        if hasattr(self.model, "subsets"):
            self.model.set_p(moment.p)
            self.model.subsets.place(batch.first, batch.total)

    def _held_out(self) -> dict[str, float]:
        """What the form that will be certified does on the rows held out of training; leaves no trace in the model.

        ``held_out_margin`` is the share whose margin (or interval bound) is enough for ``config.eps``, with float
        rounding not accounted for; the result file has the proven share of the test images.
        """
        before = {name: value.clone() for name, value in self.model.named_buffers()}
        self.update_means(self.config.evaluate_rows)
        correct, enough = self._accuracy(self.x_held, self.y_held)
        for name, value in self.model.named_buffers():
            value.copy_(before[name])
        return {"held_out_clean": correct, "held_out_margin": enough}

    def update_means(self, rows: int | None = None) -> None:
        """Recompute the running means over the first ``rows`` training rows, in a random order; all by default."""
        rows = min(rows or len(self.x), len(self.x))
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(self.seed))
        recompute_means(self.model, (x for x in self._parts(order)))

    def _parts(self, order: Tensor) -> Iterator[Tensor]:
        for chosen in order.split(EVALUATION_BATCH):
            mine = chosen[share(len(chosen), 1, self.ranks.rank, self.ranks.world)].to(self.x.device)
            yield self.x[mine].float() / self.data.scale

    @torch.no_grad()
    def _accuracy(self, x: Tensor, y: Tensor) -> tuple[float, float]:
        correct = enough = 0
        self.model.eval()
        for images, labels in zip(x.split(EVALUATION_BATCH), y.split(EVALUATION_BATCH)):
            images = images.float() / self.data.scale
            if hasattr(self.model, "lipschitz"):
                logits, reach = self.model(images), 2.0 * self.config.eps * self.model.lipschitz
                worst = logits + reach - logits.gather(1, labels[:, None])
            else:
                logits, worst = self.model(images, labels, self.config.eps)
            correct += int((logits.argmax(1) == labels).sum())
            enough += int((worst.scatter(1, labels[:, None], -torch.inf).amax(1) < 0.0).sum())
        return correct / len(y), enough / len(y)

    def save_model(self) -> Path:
        """Write the finished model, without the optimiser, for :func:`load_model`."""
        path = self.folder / MODEL_FILE
        checkpoint.write(path, {"config": self.identity(), "model": self.model.state_dict()})
        return path


def load_model(path: str | Path) -> nn.Module:
    """Return the model of a run, in evaluation mode on the CPU.

    Args:
        path: a run's folder, its ``model.pt`` (finished, means recomputed), or any of its checkpoints (whose means
            are those of training).

    Raises:
        FileNotFoundError: if there is nothing at ``path``.
        ValueError: if the file is damaged or of another version.
    """
    return load_run(path)[0]


def load_run(path: str | Path) -> tuple[nn.Module, Config, dict[str, Any]]:
    """Return (model, config, {"name", "mode", "seed", "device"}) of a run; see :func:`load_model`."""
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    state = checkpoint.read(path)
    try:
        stored, run, weights = state["config"]["config"], state["config"]["run"], state["model"]
    except (KeyError, TypeError):
        raise ValueError(
            f"{path} is no checkpoint of a run; give one that lablib train has written"
        ) from None
    try:
        config = from_plain(stored)
        shape, classes = SHAPES[config.data.name]
        model = build_model(config.model, shape, classes, config.data.name)
        model.load_state_dict(weights)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path} does not fit this version of the library: {str(error).splitlines()[0]}"
        ) from error
    return model.eval(), config, run


def _file_in(folder: Path) -> Path:
    """Return the file of a run's folder to load; of a folder of runs, say which there are."""
    files = (MODEL_FILE, checkpoint.NEWEST)
    for name in files:
        if (folder / name).exists():
            return folder / name
    inside = sorted(path.parent.name for name in files for path in folder.glob(f"*/{name}"))
    if inside:
        raise ValueError(
            f"{folder} is no run but holds runs; give one of them: {', '.join(dict.fromkeys(inside))}"
        )
    return folder / checkpoint.NEWEST


# Images (C, H, W) and classes of each data set, to rebuild a model without loading its data.
SHAPES = {"digits": ((1, 8, 8), 10), "mnist": ((1, 28, 28), 10), "cifar10": ((3, 32, 32), 10)}
