"""The two photographs that come with scikit-learn, cut into grey tiles: what serves where BSDS500 is missing.

Each photograph (427 x 640, "china" and "flower") is cut into 3 rows and 4 columns of 142 x 160 pixels. The two
left columns are for training, the third for validation, the right one for testing: no pixel is in two splits,
but all three show the same two scenes, so results are milder than on pictures never seen.
"""

import numpy as np

SCALE = 255
ROWS, COLUMNS = 3, 4
SPLITS = {"train": (0, 1), "val": (2,), "test": (3,)}  # columns


def read() -> tuple[tuple[np.ndarray, ...], ...]:
    """Return the tiles of train (12), val (6) and test (6), each (142, 160) uint8."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    pictures = [np.array(Image.fromarray(image).convert("L")) for image in load_sample_images().images]
    return tuple(
        tuple(
            _tile(picture, row, column) for picture in pictures for column in columns for row in range(ROWS)
        )
        for columns in SPLITS.values()
    )


def _tile(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    height, width = picture.shape[0] // ROWS, picture.shape[1] // COLUMNS
    return picture[row * height : (row + 1) * height, column * width : (column + 1) * width].copy()
