"""R for all 45 pairs of MNIST classes, and the depth at which sorting would lift the bound."""

from lablib.experiments.impossibility_study import StudyConfig, run_study
from lablib.experiments.recipe import Recipe

NAME = "impossibility_mnist"
_CURVES = ((4, 9), (0, 1), (3, 5))
_ALL = tuple(range(10))


def draw(record):
    """Return the figures of the result file."""
    from lablib.plots.impossibility import study_figures

    return study_figures(record)


RECIPE = Recipe(
    name=NAME,
    question="How small must the certified radius of a standard l_inf-Lipschitz network on MNIST be?",
    sizes={
        "quick": StudyConfig("quick", "mnist", (0, 1, 4, 9), 60, 1e-3, ((4, 9),), (2, 4), ((4, 9), (0, 1))),
        "standard": StudyConfig("standard", "mnist", _ALL, None, 1e-4, _CURVES, (2, 4), ((4, 9), (0, 1))),
        "full": StudyConfig("full", "mnist", _ALL, None, 1e-5, _CURVES, (2, 3, 4, 8), ((4, 9), (0, 1))),
    },
    run=run_study,
    draw=draw,
)
