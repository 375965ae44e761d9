"""R for all 45 pairs of CIFAR-10 classes, and the depth at which sorting would lift the bound."""

from lablib.experiments.impossibility_study import StudyConfig, run_study
from lablib.experiments.recipe import Recipe

NAME = "impossibility_cifar10"
_CURVES = ((3, 5), (0, 8))
_ALL = tuple(range(10))


def draw(record):
    """Return the figures of the result file."""
    from lablib.plots.impossibility import study_figures

    return study_figures(record)


RECIPE = Recipe(
    name=NAME,
    question="How small must the certified radius of a standard l_inf-Lipschitz network on CIFAR-10 be?",
    sizes={
        "quick": StudyConfig("quick", "cifar10", (0, 3, 5, 8), 40, 1e-3, ((3, 5),), (2, 4), ((3, 5), (0, 8))),
        "standard": StudyConfig("standard", "cifar10", _ALL, 1000, 1e-4, _CURVES, (2, 4), ((3, 5), (0, 8))),
        "full": StudyConfig("full", "cifar10", _ALL, None, 1e-4, _CURVES, (2, 4), ((3, 5), (0, 8))),
    },
    run=run_study,
    draw=draw,
)
