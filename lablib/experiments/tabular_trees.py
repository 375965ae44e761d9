"""Gradient boosting with monotone constraints on tables: scikit-learn, XGBoost and LightGBM.

All three keep each prediction monotone by construction of the trees. The number of rounds plays the part of the
steps of a network. XGBoost and LightGBM are optional.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from lablib.experiments.tabular_networks import Setting, Trained
from lablib.experiments.tabular_rows import Job

HIST, XGBOOST, LIGHTGBM = "hist", "xgboost", "lightgbm"
PACKAGES = {HIST: "sklearn", XGBOOST: "xgboost", LIGHTGBM: "lightgbm"}


def courses(method: str, setting: Setting, jobs: Sequence[Job], checks: Sequence[int]) -> np.ndarray:
    """Fit one model per job; return the scores of its held rows after each of ``checks`` rounds: (P, C, M)."""
    grow = _GROW[method]
    return np.stack([np.stack(grow(setting, job, checks)[0]) for job in jobs])


def fit(
    method: str, setting: Setting, jobs: Sequence[Job], checks: Sequence[int], stops: Sequence[int]
) -> list[Trained]:
    """Fit one model per job, each with ``checks[stop]`` rounds."""
    return [_GROW[method](setting, job, checks[: stop + 1])[1] for job, stop in zip(jobs, stops)]


def at_hand(method: str) -> bool:
    """Whether the package of this method is installed."""
    return find_spec(PACKAGES[method]) is not None


def _grow_hist(setting: Setting, job: Job, checks: Sequence[int]) -> tuple[list[np.ndarray], Trained]:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if job.classes else HistGradientBoostingRegressor
    model = kind(
        learning_rate=setting["rate"],
        max_leaf_nodes=setting["leaves"],
        min_samples_leaf=setting["least"],
        max_iter=checks[-1],
        early_stopping=False,
        monotonic_cst=list(job.directions),
        random_state=job.seed,
    ).fit(job.x, job.y)
    staged = model.staged_decision_function if job.classes else model.staged_predict
    wanted = set(checks)
    scores = [score.ravel() for round_, score in enumerate(staged(job.held_x), 1) if round_ in wanted]
    leaves = [tree.get_n_leaf_nodes() for trees in model._predictors for tree in trees]
    predict = model.decision_function if job.classes else model.predict
    return scores, Trained(lambda x: predict(x).ravel(), sum(2 * count - 1 for count in leaves))


def _grow_xgboost(setting: Setting, job: Job, checks: Sequence[int]) -> tuple[list[np.ndarray], Trained]:
    import xgboost

    options = {
        "objective": "binary:logistic" if job.classes else "reg:squarederror",
        "eta": setting["rate"],
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_depth": 0,
        "max_leaves": setting["leaves"],
        "min_child_weight": setting["least"] * (0.25 if job.classes else 1.0),  # sums of second derivatives
        "monotone_constraints": tuple(job.directions),
        "nthread": 1,
        "seed": job.seed,
        "verbosity": 0,
    }
    model = xgboost.train(options, xgboost.DMatrix(job.x, job.y), checks[-1])
    held = xgboost.DMatrix(job.held_x)
    scores = [model.predict(held, output_margin=True, iteration_range=(0, check)) for check in checks]
    nodes = sum(len(tree.splitlines()) for tree in model.get_dump())
    return scores, Trained(lambda x: _margin(model, x), nodes)


def _margin(model, x: np.ndarray) -> np.ndarray:
    import xgboost

    return model.predict(xgboost.DMatrix(x), output_margin=True).astype(np.float64)


def _grow_lightgbm(setting: Setting, job: Job, checks: Sequence[int]) -> tuple[list[np.ndarray], Trained]:
    import lightgbm

    options = {
        "objective": "binary" if job.classes else "regression",
        "learning_rate": setting["rate"],
        "num_leaves": setting["leaves"],
        "min_data_in_leaf": setting["least"],
        "monotone_constraints": list(job.directions),
        "monotone_constraints_method": "advanced",
        "num_threads": 1,
        "seed": job.seed,
        "verbosity": -1,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = lightgbm.train(options, lightgbm.Dataset(job.x, job.y), checks[-1])
    scores = [model.predict(job.held_x, raw_score=True, num_iteration=check) for check in checks]
    leaves = [tree["num_leaves"] for tree in model.dump_model()["tree_info"]]
    return scores, Trained(lambda x: model.predict(x, raw_score=True), sum(2 * count - 1 for count in leaves))


_GROW: dict[str, Callable[[Setting, Job, Sequence[int]], tuple[list[np.ndarray], Trained]]] = {
    HIST: _grow_hist,
    XGBOOST: _grow_xgboost,
    LIGHTGBM: _grow_lightgbm,
}
