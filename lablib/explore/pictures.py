"""Grey pictures as panels of a plotly figure."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

LEVELS = 255


def as_levels(picture: np.ndarray) -> np.ndarray:
    """Return a picture clipped to [0, 1] as uint8: less to send to the page."""
    return np.rint(np.clip(picture, 0, 1) * LEVELS).astype(np.uint8)


def add_picture(figure: go.Figure, shape: tuple[int, ...], row: int, column: int, **style: Any) -> None:
    """Add an empty grey picture (uint8, first row on top) to a panel."""
    look = {"zmin": 0, "zmax": LEVELS, "colorscale": "gray", "showscale": False, "hoverinfo": "skip"} | style
    heat = go.Heatmap(z=np.zeros(shape, dtype=np.uint8), **look)
    figure.add_trace(heat, row=row, col=column)
    anchor = figure.data[-1].xaxis or "x"
    figure.update_xaxes(visible=False, range=[-0.5, shape[1] - 0.5], row=row, col=column)
    figure.update_yaxes(
        visible=False,
        range=[shape[0] - 0.5, -0.5],
        scaleanchor=anchor,
        constrain="domain",
        row=row,
        col=column,
    )
