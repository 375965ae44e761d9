"""Data sets with checked content: ``load(name)`` returns the same arrays wherever the files came from.

``digits`` is bundled with scikit-learn and needs no network. ``mnist`` and ``cifar10`` are looked for in the
folder ``LABLIB_DATA`` (never written to), then in the cache (``LABLIB_CACHE``, default the user's own), and
are downloaded from their official hosts only when neither has them. Pictures without labels come from
``load_pictures``: ``bsds500``, found in the same way, or ``pictures``, bundled with scikit-learn. Rows of numbers
come from ``load_table``: ``compas``, ``heart`` and ``auto-mpg``, found in the same way, or ``diabetes`` and
``breast-cancer``, bundled with scikit-learn.
"""

from lablib.data.contract import DamagedDataError, DataFolderError, Dataset, MissingDataError, Pictures, Table
from lablib.data.registry import (
    LABELLED,
    NAMES,
    PICTURES,
    TABLES,
    Status,
    available,
    load,
    load_pictures,
    load_table,
)

__all__ = [
    "LABELLED",
    "NAMES",
    "PICTURES",
    "TABLES",
    "DamagedDataError",
    "DataFolderError",
    "Dataset",
    "MissingDataError",
    "Pictures",
    "Status",
    "Table",
    "available",
    "load",
    "load_pictures",
    "load_table",
]
