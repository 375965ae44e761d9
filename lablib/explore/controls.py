"""Sliders and pickers in one look: a name in front, and what it does as a hint."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ipywidgets as widgets

WIDTH, LABEL_WIDTH = "268px", "84px"
_STYLE = {"description_width": LABEL_WIDTH}


def slider(name: str, value: float, low: float, high: float, step: float, hint: str) -> widgets.Widget:
    """Return a slider for whole numbers if all four numbers are whole, else for decimals."""
    whole = all(isinstance(number, int) for number in (value, low, high, step))
    kind = widgets.IntSlider if whole else widgets.FloatSlider
    options = {} if whole else {"readout_format": ".2f"}
    return kind(
        value=value,
        min=low,
        max=high,
        step=step,
        description=name,
        tooltip=hint,
        continuous_update=True,
        style=_STYLE,
        layout=widgets.Layout(width=WIDTH),
        **options,
    )


def picker(name: str, options: Sequence[Any], value: Any, hint: str) -> widgets.Dropdown:
    """Return a drop-down list."""
    return widgets.Dropdown(
        options=options,
        value=value,
        description=name,
        tooltip=hint,
        style=_STYLE,
        layout=widgets.Layout(width=WIDTH),
    )


def wide(control: widgets.Widget) -> widgets.Widget:
    """Give a control room for a long name, three to a line, and return it."""
    control.style.description_width, control.layout.width = "175px", "340px"
    return control


def rows(*lines: Sequence[widgets.Widget]) -> widgets.VBox:
    """Put lines of controls under each other; a line that does not fit the page wraps."""
    wrap = widgets.Layout(flex_flow="row wrap", align_items="center")
    return widgets.VBox([widgets.HBox(list(line), layout=wrap) for line in lines])


def hints(controls: Sequence[widgets.Widget]) -> widgets.HTML:
    """Return the hints of all controls as text: a handle shows none, and a reader may have no mouse."""
    parts = [f"<b>{control.description}</b> {control.tooltip}" for control in controls]
    return widgets.HTML(f'<div style="line-height:1.3"><small>{"; ".join(parts)}.</small></div>')


def watch(controls: Sequence[widgets.Widget], answer: Callable[[], None]) -> None:
    """Call ``answer`` whenever the value of one of the controls changes."""
    for control in controls:
        control.observe(lambda _change: answer(), names="value")


@contextlib.contextmanager
def pressed(button: widgets.Button, status: widgets.Label) -> Iterator[None]:
    """Run what a button starts: it cannot be pressed meanwhile, and ``status`` says why there is no result."""
    button.disabled = True
    try:
        yield
    except KeyboardInterrupt:
        status.value = "stopped"
    except ValueError as error:
        status.value = str(error)
    finally:
        button.disabled = False
