"""What an impossibility certificate holds, and how it is written to and read from a JSON file."""

import dataclasses
import json
import math
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "lablib impossibility certificate 1"
_DECIMALS = {
    "lower": -1,
    "upper": 1,
    "half_separation": -1,
}  # beside the fractions, for readers; 1: rounded up
_DIGITS = 9


def budget_of(dimension: int, depth: int, group: int) -> int:
    """Return K = min(d, G^(M-1)), the l1 budget of a neuron after M affine layers and M - 1 sorts of groups of G."""
    budget = 1
    for _ in range(depth - 1):
        if group == 1 or budget >= dimension:
            break
        budget *= group
    return min(dimension, budget)


def budget_rows(classes: int) -> int:
    """Return how many budgets the linear program has: one per logit, one in all for two classes."""
    return 1 if classes == 2 else classes


class DamagedCertificateError(ValueError):
    """The file is not a certificate, or not a whole one."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A proof that no network of one kind certifies a radius above :attr:`upper` on all of the given points.

    Certifies: by its Lipschitz margin, |f| for a sign classifier, (f_y - max f_j) / 2 for logits; each of them
    1-Lipschitz in l_inf. Its true robustness may be larger.

    The networks: M = ``depth`` affine layers whose rows have l1 norm <= 1, elementwise 1-Lipschitz activations,
    and sorts of groups of G = ``group`` neurons at M - 1 places (depth 1: none, so any standard l_inf-Lipschitz
    network of any depth). Each logit has a budget in {0 <= lambda_j <= 1, sum lambda_j <= K},
    K = ``budget`` = min(d, G^(M-1)). Why that bounds the radius is derived in :mod:`.check`.

    Attributes:
        names: one per class.
        sizes: points per class.
        dimension: d, coordinates per point.
        norm: ``"linf"``.
        depth, group, budget: M, G, K.
        digest: sha256 of statement and data, see :func:`.exact.digest`.
        scale: coordinates are integers / scale; for integer data, the value that counts as 1.0.
        pairs: (class, index, class', index') with class < class', all different.
        weights: positive integers, one per pair; mu = weights / ``weight_sum``.
        weight_sum: sum of the weights.
        bound: the upper bound that mu proves.
        budgets: for each logit (one shared row if there are two classes) the (coordinate, integer) with
            lambda_coordinate = integer / ``denominator``; coordinates that are not named have no budget.
        denominator: of the budgets.
        value: radius that these budgets would allow: a lower bound on the LP's optimum.
        separation: smallest l_inf distance of points of different classes.
        separation_pair: a pair (class, index, class', index') that attains it.
        run: what it took to find (seconds, rounds, ...); no part of the proof.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    dimension: int
    norm: str
    depth: int
    group: int
    budget: int
    digest: str
    scale: int
    pairs: tuple[tuple[int, int, int, int], ...]
    weights: tuple[int, ...]
    weight_sum: int
    bound: Fraction
    budgets: tuple[tuple[tuple[int, int], ...], ...]
    denominator: int
    value: Fraction
    separation: Fraction
    separation_pair: tuple[int, int, int, int]
    run: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def half_separation(self) -> Fraction:
        """Half the smallest l_inf distance between classes: what the nearest-neighbour classifier reaches."""
        return self.separation / 2

    @property
    def upper(self) -> Fraction:
        """No network of the kind certifies more than this: min(bound, half_separation)."""
        return min(self.bound, self.half_separation)

    @property
    def lower(self) -> Fraction:
        """This argument cannot prove less than this: min(value, half_separation). No network need reach it."""
        return min(self.value, self.half_separation)

    def lambdas(self) -> np.ndarray:
        """Return the budgets as float64 (rows, d), for pictures."""
        filled = np.zeros((len(self.budgets), self.dimension))
        for row, entries in zip(filled, self.budgets):
            for coordinate, weight in entries:
                row[coordinate] = weight / self.denominator
        return filled

    def heaviest(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ``count`` pairs with most weight (count, 4) and their shares mu of the proof, for pictures."""
        order = np.argsort(-np.array(self.weights), kind="stable")[:count]
        return np.array(self.pairs)[order], np.array(self.weights)[order] / self.weight_sum

    @property
    def statement(self) -> dict[str, Any]:
        """What the digest covers besides the data."""
        kind = {"norm": self.norm, "depth": self.depth, "group": self.group, "scale": self.scale}
        return {"format": FORMAT, "names": list(self.names), **kind}

    def save(self, path: str | os.PathLike) -> Path:
        """Write the certificate as JSON, whole or not at all, and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(self.to_json())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        return path

    def to_json(self) -> str:
        """Return the text of the file: one line per field, fractions as strings, decimals for readers."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("bound", "value", "separation"):
            exact = fields[name]
            fields[name] = [str(exact.numerator), str(exact.denominator)]
        decimals = {name: _decimal(getattr(self, name), way) for name, way in _DECIMALS.items()}
        lines = [f'"format": {json.dumps(FORMAT)}']
        lines += [f"{json.dumps(name)}: {text}" for name, text in decimals.items()]
        lines += [f"{json.dumps(name)}: {_dump(value)}" for name, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Certificate":
        """Read a certificate.

        Raises:
            DamagedCertificateError: if the file is cut short, is no certificate, or its decimals and fractions
                disagree. Whether the proof holds is for :func:`.check.check` to say.
        """
        text = Path(path).read_bytes()
        try:
            return cls.from_json(text.decode())
        except (ValueError, TypeError, KeyError, ZeroDivisionError, RecursionError) as error:
            raise DamagedCertificateError(
                f"{path} is not a whole impossibility certificate ({error}); restore the file or make it again "
                "with: python -m lablib impossible"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Inverse of :meth:`to_json`. No float is made: decimals are read as fractions."""
        fields = json.loads(
            text, parse_float=Fraction, parse_constant=_refuse_constant, object_pairs_hook=_once_each
        )
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError(f"the format is not {FORMAT!r}")
        decimals = {name: fields.pop(name) for name in _DECIMALS}
        if unknown := set(fields) - {field.name for field in dataclasses.fields(cls)}:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        for name in ("bound", "value", "separation"):
            numerator, denominator = fields[name]
            fields[name] = Fraction(int(numerator), int(denominator))
        fields["run"] = json.loads(text)["run"]
        certificate = cls(
            **{name: value if name == "run" else _tuple(value) for name, value in fields.items()}
        )
        for name, decimal in decimals.items():
            if decimal != Fraction(_decimal(getattr(certificate, name), _DECIMALS[name])):
                raise ValueError(f"the decimal of {name} does not belong to its fraction")
        return certificate


def _dump(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _decimal(exact: Fraction, way: int) -> str:
    """Return the fraction with nine decimals, ``0.093106471``, rounded up (1) or down (-1)."""
    units = math.ceil(exact * 10**_DIGITS) if way > 0 else math.floor(exact * 10**_DIGITS)
    return f"{units // 10**_DIGITS}.{units % 10**_DIGITS:0{_DIGITS}d}"


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands there twice")
    return fields


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
