"""scikit-learn's breast cancer table: 569 tumours, thirty measures of their cells, malignant or not.

Wolberg, Street and Mangasarian, Wisconsin, 1993. The directions are those that most readers would ask for; nobody
has published them as a benchmark.
"""

import numpy as np

MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness",
    "compactness", "concavity", "concave points", "symmetry", "fractal dimension",
)  # fmt: skip
FEATURES = tuple(form.format(m) for form in ("mean {}", "{} error", "worst {}") for m in MEASURES)
RISING = ("radius", "texture", "concavity", "concave points")
DIRECTIONS = tuple(int(f in [f"{w} {m}" for w in ("mean", "worst") for m in RISING]) for f in FEATURES)
TARGET_NAME = "malignant"
TASK = "classification"
NOTES = (
    "569 tumours, measured in pictures of their cells. An easy table: most methods are right for 95 % or more, so it "
    "tells them apart poorly; not fit for medical advice. Directions: larger, rougher and more dented cells do not "
    "lower the score of a malignant tumour."
)


def read() -> dict[str, np.ndarray]:
    """Return ``features`` (569, 30) and ``target`` (569,): 1 is malignant, which scikit-learn calls 0."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    return {"features": found.data.astype(np.float64), "target": 1.0 - found.target}
