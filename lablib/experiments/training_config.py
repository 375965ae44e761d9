"""The settings of a training run: one frozen dataclass, changed from the command line by dotted names."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained.

    Attributes:
        kind: mlp (SortMLP), hybrid (SortHybrid), conv (SortConv), groupsort, abs, or ibp.
        width, depth: neurons per layer, layers with the last one.
        keep, top: q and K of the sorted neuron; keep = 1 is the l_inf-distance net.
        identity: start weights at -identity on the diagonal; none for normal weights alone.
        hidden: units of the hybrid's last hidden layer.
    """

    kind: str = "mlp"
    width: int = 512
    depth: int = 4
    keep: float = 0.7
    top: int = 10
    identity: float | None = None
    hidden: int = 512


@dataclasses.dataclass(frozen=True)
class Data:
    """What it is trained on.

    Attributes:
        name: of the data set.
        train, test: how many rows from the start; 0 for all.
        held_out: how many of the training rows, the last ones, are not trained on but evaluated during training;
            0 for no evaluation.
        pad, flip: augmentation, random crop with so many pixels of edge, and mirroring.
    """

    name: str = "mnist"
    train: int = 0
    test: int = 0
    held_out: int = 0
    pad: int = 1
    flip: bool = False


@dataclasses.dataclass(frozen=True)
class Loss:
    """What is minimised.

    Attributes:
        kind: mixture, ce_hinge or worst_case.
        eps: radius asked for in training, raw pixels in [0, 1].
        eps_end: epoch at which the smooth ramp of eps reaches it; 0 for no ramp.
        lam, lam_end: weight of the cross entropy before and after p grows (of the clean part, for worst_case).
    """

    kind: str = "mixture"
    eps: float = 0.3
    eps_end: float = 0.0
    lam: float = 0.1
    lam_end: float = 0.001


@dataclasses.dataclass(frozen=True)
class Optim:
    """How it is minimised: AdamW, cosine learning rate to 0.

    Attributes:
        lr, decay: learning rate; weight decay outside the sort layers.
        beta1, beta2, epsilon: of Adam.
        batch: samples per step, over all processes.
        epochs: how long.
    """

    lr: float = 0.02
    decay: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-10
    batch: int = 512
    epochs: int = 40


@dataclasses.dataclass(frozen=True)
class Exponent:
    """The exponent p of the neurons in training.

    Attributes:
        start, stop: where it starts and ends before it becomes inf.
        begin, end: epochs between which it grows.
        grid: real, or powers (rounded down to 2^k and 1.5 * 2^k, much faster).
    """

    start: float = 8.0
    stop: float = 1000.0
    begin: float = 3.0
    end: float = 38.0
    grid: str = "powers"


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run.

    Attributes:
        eps: radius at which certified accuracy is reported, raw pixels in [0, 1].
        evaluate: epochs between evaluations on ``data.held_out`` rows during training; 0 for none.
        evaluate_rows: how many training rows they take the means over.
        attack_rows: test rows that the finished model is attacked on; 0 for none.
    """

    model: Model = Model()
    data: Data = Data()
    loss: Loss = Loss()
    optim: Optim = Optim()
    p: Exponent = Exponent()
    eps: float = 0.3
    evaluate: int = 5
    evaluate_rows: int = 1000
    attack_rows: int = 200

    def __post_init__(self) -> None:
        for name, value in (("optim.batch", self.optim.batch), ("optim.epochs", self.optim.epochs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        for name, value in (("eps", self.eps), ("loss.eps", self.loss.eps), ("optim.lr", self.optim.lr)):
            if not value > 0.0:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 0.0 <= self.p.begin < self.p.end <= self.optim.epochs:
            raise ValueError(
                f"p grows from epoch {self.p.begin:g} to {self.p.end:g} of {self.optim.epochs}; "
                "choose 0 <= p.begin < p.end <= optim.epochs"
            )
        rows = (self.data.train, self.data.test, self.data.held_out, self.attack_rows)
        if min(*rows, self.evaluate, self.loss.eps_end) < 0 or self.evaluate_rows < 1:
            raise ValueError(
                "numbers of rows and epochs must not be negative; 0 stands for all, or for never"
            )


def override(config: Config, settings: Iterable[str]) -> Config:
    """Return ``config`` with ``section.name=value`` settings put in.

    >>> override(Config(), ["model.width=64", "optim.lr=0.1"]).model.width
    64

    Raises:
        ValueError: for a setting that does not exist (the nearest ones are named), a value of another type, or
            a config that makes no sense.
    """
    changes: dict[str, dict[str, Any]] = {}
    types_ = known_settings()
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"{setting!r} is no setting; settings are KEY=VALUE, such as model.width=512")
        if name not in types_:
            near = difflib.get_close_matches(name, types_, n=3, cutoff=0.4) or sorted(types_)
            raise ValueError(f"no setting {name!r}; near it: {', '.join(near)}")
        section, _, field = name.rpartition(".")
        changes.setdefault(section, {})[field] = _parse(name, text, types_[name])
    top = changes.pop("", {})
    for section, values in changes.items():
        top[section] = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **top)


def known_settings() -> dict[str, Any]:
    """Return dotted name -> type of every setting."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(Config).items():
        if dataclasses.is_dataclass(kind):
            found |= {f"{name}.{inner}": of for inner, of in typing.get_type_hints(kind).items()}
        else:
            found[name] = kind
    return found


def from_plain(stored: dict[str, Any]) -> Config:
    """Return the config that ``dataclasses.asdict`` made plain.

    Raises:
        ValueError: if it has other fields: it belongs to another version of the library.
    """
    sections = typing.get_type_hints(Config)
    try:
        made = {
            name: sections[name](**value) if dataclasses.is_dataclass(sections[name]) else value
            for name, value in stored.items()
        }
        return Config(**made)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its settings are not those of this version ({error}); train it again") from error


def _parse(name: str, text: str, kind: Any) -> Any:
    optional = isinstance(kind, types.UnionType)
    if optional:
        if text.lower() == "none":
            return None
        kind = next(of for of in kind.__args__ if of is not type(None))
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        try:
            value = kind(text)
            if kind is not float or abs(value) < float("inf"):
                return value
        except ValueError:
            pass
    wanted = {bool: "true or false", int: "a whole number", float: "a finite number"}[kind]
    raise ValueError(f"{name} is {wanted}{' or none' if optional else ''}, got {text!r}")
