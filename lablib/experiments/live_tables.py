"""The tables of the live fits: a toy whose truth is known, tables with names and directions, trigger candidates."""

import contextlib
import dataclasses
from collections.abc import Sequence

import numpy as np

from lablib.data import MissingDataError, load_table
from lablib.experiments import trigger_events

FILES = ("heart", "auto-mpg", "compas")
SHOWN = {"breast-cancer": 10, "compas": 5}  # first features: means of cells; counts and age, not race and sex


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table as the explorers show it.

    Attributes:
        name: what the reader chooses.
        x: (N, I) float64 features, in their own units. ``y``: (N,) what is to be predicted: 0 and 1 if ``classes``.
        features: (I,) names. ``target``: name of y.
        directions: (I,) +1, 0 or -1, the directions one would ask for.
        classes: whether y is a yes or no; the network's output is then its logit.
        notes: what the rows are, and what they are and are not fit for.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    features: tuple[str, ...]
    target: str
    directions: tuple[int, ...]
    classes: bool
    notes: str = ""

    def __post_init__(self) -> None:
        shapes = (self.x.shape, self.y.shape, (len(self.features),), (len(self.directions),))
        rows, inputs = self.x.shape if self.x.ndim == 2 else (0, 0)
        if not rows or shapes[1:] != ((rows,), (inputs,), (inputs,)):
            raise ValueError(f"{self.name}: give x (N, I), y (N,), and I names and directions, not {shapes}")
        if not (np.isfinite(self.x).all() and np.isfinite(self.y).all()):
            raise ValueError(f"{self.name}: there are entries that are not finite; drop or fill those rows")

    def keep(self, columns: Sequence[int]) -> "Rows":
        """Return the table with these features only."""
        chosen = list(columns)
        names, wanted = (
            tuple(each[number] for number in chosen) for each in (self.features, self.directions)
        )
        return dataclasses.replace(self, x=self.x[:, chosen], features=names, directions=wanted)


def toy(count: int = 240, seed: int = 0) -> Rows:
    """Return two features and a noisy number: it rises with the first, in a step, and waves with the second."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (count, 2))
    y = np.tanh(3 * x[:, 0]) + 0.5 * np.sin(2 * x[:, 1]) + 0.2 * rng.standard_normal(count)
    notes = "Made up: y is tanh(3 step) + sin(2 wave) / 2 with noise of 0.2."
    return Rows("toy", x, y, ("step", "wave"), "y", (1, 0), classes=False, notes=notes)


def events(count: int = 600, seed: int = 0) -> Rows:
    """Return pairs of tracks, half of them from the decay of a beauty hadron: see :mod:`.trigger_events`."""
    counts = {"beauty": count // 2, **trigger_events.background_counts(count - count // 2)}
    found = trigger_events.generate_mixture(counts, seed=seed)
    notes = (
        "Pairs of tracks from a generator, not detector data; half of them signal, a share no collider has."
    )
    kind = {"target": "beauty", "classes": True, "notes": notes}
    names, directions = trigger_events.FEATURES, tuple(trigger_events.DIRECTIONS)
    return Rows("trigger", found.features, found.signal.astype(float), names, directions=directions, **kind)


def table(name: str) -> Rows:
    """Return a table of :func:`lablib.data.load_table` that is on this machine.

    Raises:
        MissingDataError: if it is not. ValueError: if there is no such table.
    """
    found = load_table(name, download=False)
    classes = found.task == "classification"
    arrays = found.features, found.target
    names, directions = tuple(found.names), tuple(found.directions)
    return Rows(name, *arrays, names, found.target_name, directions, classes, found.notes)


def offline_tables() -> dict[str, Rows]:
    """Return name -> table for all that need no network; those of files only where the files are."""
    made = {"toy": toy(), "trigger": events()}
    for name in ("diabetes", "breast-cancer", *FILES):
        with contextlib.suppress(MissingDataError):
            found = table(name)
            made[name] = found.keep(range(SHOWN.get(name, len(found.features))))
    return made
