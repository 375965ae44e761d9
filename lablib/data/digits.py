"""scikit-learn's digits: 1,797 images of 8 x 8 with values 0..16, the test part of the UCI optical digits.

The rows stand in the order of their writers. The test split is the last 360 rows, so its writers are (nearly)
all unseen in training; nothing is shuffled.
"""

import numpy as np

CLASS_NAMES = tuple("0123456789")
SCALE = 16
TEST_ROWS = 360


def read() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train (1437, 1, 8, 8) uint8, y_train int64, x_test (360, 1, 8, 8), y_test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = bunch.images.astype(np.uint8)[:, None]
    y = bunch.target.astype(np.int64)
    return x[:-TEST_ROWS], y[:-TEST_ROWS], x[-TEST_ROWS:], y[-TEST_ROWS:]
