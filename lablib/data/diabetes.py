"""scikit-learn's diabetes table: 442 patients, ten features, and a measure of the disease a year later.

Efron, Hastie, Johnstone and Tibshirani, "Least Angle Regression", 2004. The directions are those that most readers
would ask for; nobody has published them as a benchmark.
"""

import numpy as np

FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
DIRECTIONS = tuple(int(name in ("bmi", "bp", "s5")) for name in FEATURES)
TARGET_NAME = "progress of the disease after a year"
TASK = "regression"
NOTES = (
    "442 patients with diabetes, and how far the disease had gone a year later. Small and noisy: good for trying "
    "out regression, not fit for medical advice. Directions: higher body mass index, blood pressure and blood fat "
    "(s5) do not lower the prediction."
)


def read() -> dict[str, np.ndarray]:
    """Return ``features`` (442, 10) in their own units and ``target`` (442,)."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return {"features": found.data.astype(np.float64), "target": found.target.astype(np.float64)}
