"""Named recipes: config -> run -> result file -> figures. The only place that ties the library together.

Each recipe is a module of this package with a ``RECIPE`` (see :mod:`lablib.experiments.recipe`). The order
here is the order in which ``lablib figures`` runs them.
"""

import importlib

RECIPES: tuple[str, ...] = (
    "boolean_curves",
    "boolean_gap",
    "order_statistics",
    "impossibility_mnist",
    "impossibility_cifar10",
    "activation_gallery",
    "decision_boundaries",
    "sorting_depth",
    "spline_fitting",
    "spline_representer",
    "orthonormal_methods",
    "wasserstein",
    "denoising",
    "plug_and_play",
    "monotone_toys",
    "monotone_tabular",
    "trigger",
    "private_accuracy",
    "private_speed",
    "private_tightness",
    "private_audit",
    "peer_battery",
    "certified_accuracy",
)


def load_recipe(name: str):
    """Return the :class:`~lablib.experiments.recipe.Recipe` called ``name``.

    Raises:
        ValueError: if there is no such recipe; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}; choose from: {', '.join(RECIPES)}")
    return importlib.import_module(f"lablib.experiments.{name}").RECIPE
