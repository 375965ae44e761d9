"""One look for every figure: colour-blind safe, explicit white ground (also in JupyterLab Dark), page-sized.

matplotlib figures are drawn under ``with theme():``; plotly figures take ``template=plotly_template()``.
Colours are Okabe-Ito's (safe for the common colour-vision deficiencies); series differ by line style as well.
One activation has one look in every figure, :func:`activation_look`; so has one monotone or Lipschitz method,
:func:`method_look`.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#6E6E6E",
)
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
DASHES = ("solid", "dashed", "dashdot", "dotted")
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
PAGE_WIDTH = 7.0  # inches: the text width of a page; half-width figures are 3.4


class Look(NamedTuple):
    """Colour, matplotlib dash and marker of a line; any one of the three tells the lines of a figure apart."""

    colour: str
    dash: str | tuple[int, tuple[float, ...]]
    marker: str

    def line(self) -> dict[str, Any]:
        """Return ``color`` and ``linestyle`` for matplotlib."""
        return {"color": self.colour, "linestyle": self.dash}


LOOKS = {  # activation or other method -> look; brown and indigo keep apart from the others as Okabe-Ito's do
    "relu": Look(SKY, (0, (1.5, 1)), "v"),
    "leaky": Look("#332288", (0, (2.5, 1.5)), "<"),
    "abs": Look(ORANGE, (0, (5, 1.5)), "^"),
    "prelu": Look(PURPLE, (0, (5, 1.5, 1, 1.5)), "D"),
    "groupsort": Look(GREEN, (0, (10, 2)), "s"),
    "householder": Look("#661100", (0, (4, 1.2, 1, 1.2, 1, 1.2)), "P"),
    "spline": Look(BLUE, "solid", "o"),
    "unconstrained": Look(RED, (0, (9, 1.5, 3, 1.5)), "X"),
    "tv": Look(GREY, "dashed", "*"),
    "tgv": Look(GREY, "dotted", "p"),
}
_TEXTS = {  # what labels say, in lower case
    "leaky relu": "leaky",
    "absolute value": "abs",
    "learned spline": "spline",
    "no constraint": "unconstrained",
    "total variation": "tv",
}


def activation_look(name: str) -> Look:
    """Return the look of an activation or method, the same in every figure.

    Args:
        name: a key of :data:`LOOKS`, or what a label says ("ReLU", "absolute value", "learned spline", ...).

    Raises:
        ValueError: for an unknown name.
    """
    key = name.lower()
    try:
        return LOOKS[_TEXTS.get(key, key)]
    except KeyError:
        raise ValueError(f"no look for {name!r}; choose from {', '.join(LOOKS)}") from None


_OURS = Look(BLUE, "solid", "o")
METHODS = {  # what the label of a monotone or Lipschitz method holds, in lower case -> look; the first counts
    "unconstrained": LOOKS["unconstrained"],
    "residual λ": Look(PURPLE, "dotted", "v"),
    "residual 1.3³": Look(PURPLE, "dotted", "v"),
    "residual 1.3⁴": Look("black", (0, (4, 1.2, 1, 1.2, 1, 1.2)), "P"),
    "readme kinds": Look("#661100", (0, (4, 1.2, 1, 1.2)), "P"),
    "default kinds": Look("#AA3377", (0, (2.5, 1.5)), "<"),
    "scikit-learn": Look(GREEN, "dashed", "s"),
    "boosting": Look(GREEN, "dashed", "s"),
    "xgboost": Look("#999933", (0, (1.5, 1)), "D"),
    "lightgbm": Look(GREY, "dashdot", "^"),
    "lipschitz": Look(ORANGE, (0, (5, 1.5)), "p"),
    "certified residual": _OURS,
    "monotone": _OURS,
}
CONSTANTS = {  # the same for "monotone ..., λ = ..." with another constant than the usual one
    "1": Look("#332288", (0, (2.5, 1.5)), "<"),
    "4": Look("#44AA99", (0, (10, 2)), ">"),
    "8": Look(SKY, (0, (5, 1.5)), "*"),
}


def method_look(label: str) -> Look:
    """Return the look of a monotone or Lipschitz method by its label, the same in every figure.

    Raises:
        ValueError: for a label that holds no key of :data:`METHODS`.
    """
    text = " ".join(label.lower().split())
    found = next((key for key in METHODS if key in text), None)
    if found is None:
        raise ValueError(f"no look for {label!r}; a label holds one of {', '.join(METHODS)}")
    constant = text.rpartition("λ = ")[2]
    return CONSTANTS.get(constant, METHODS[found]) if METHODS[found] is _OURS else METHODS[found]


_RC = {
    "figure.facecolor": "white",
    "figure.figsize": (PAGE_WIDTH, 3.4),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "font.size": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "image.cmap": SEQUENTIAL,
    "svg.hashsalt": "lablib",
    "svg.fonttype": "none",
}


@contextlib.contextmanager
def theme(**overrides: object) -> Iterator[None]:
    """Draw matplotlib figures in the lab's look inside this block; ``overrides`` are rcParams."""
    with mpl.rc_context({**_RC, **overrides}):
        yield


def new_figure(width: float = PAGE_WIDTH, height: float = 3.4) -> Figure:
    """Return an empty figure (inches) that no pyplot state keeps alive. Call it inside :func:`theme`."""
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, stem: Path | str) -> list[Path]:
    """Write a figure, byte-stable for equal input, each file all or nothing.

    A matplotlib figure becomes ``stem.svg`` and ``stem.png`` (160 dpi); a plotly figure becomes
    ``stem.html``, which works with no network beside the one ``plotly.min.js`` of its folder.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    if hasattr(figure, "to_html"):
        return [_save_html(figure, stem.with_name(stem.name + ".html"))]
    paths = []
    for suffix, options in ((".svg", {"metadata": {"Date": None}}), (".png", {"dpi": 160})):
        path = stem.with_name(stem.name + suffix)
        handle, temporary = tempfile.mkstemp(dir=stem.parent, prefix=f".{path.name}.", suffix=suffix)
        os.close(handle)
        try:
            with mpl.rc_context(_RC):
                figure.savefig(temporary, **options)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        paths.append(path)
    return paths


def _save_html(figure: Any, path: Path) -> Path:
    from plotly.offline import get_plotlyjs

    script = path.with_name("plotly.min.js")
    text = figure.to_html(include_plotlyjs="directory", div_id=path.stem)
    for target, content in ((script, get_plotlyjs()), (path, text)):
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, target)
    return path


def plotly_template():
    """Return the plotly template with the lab's look."""
    import plotly.graph_objects as go

    axis = {"gridcolor": "#E3E3E3", "zerolinecolor": "#B0B0B0", "linecolor": "#404040", "ticks": "outside"}
    return go.layout.Template(
        layout={
            "colorway": list(COLOURS),
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "font": {"color": "#202020", "size": 13},
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
            "colorscale": {"sequential": "Cividis", "diverging": "RdBu_r"},
        }
    )
