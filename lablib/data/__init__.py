"""Data sets with checked content: ``load(name)`` returns the same arrays wherever the files came from.

``digits`` is bundled with scikit-learn and needs no network. ``mnist`` and ``cifar10`` are looked for in the
folder ``LABLIB_DATA`` (never written to), then in the cache (``LABLIB_CACHE``, default the user's own), and
are downloaded from their official hosts only when neither has them.
"""

from lablib.data.contract import DamagedDataError, Dataset, MissingDataError
from lablib.data.registry import NAMES, Status, available, load

__all__ = ["NAMES", "DamagedDataError", "Dataset", "MissingDataError", "Status", "available", "load"]
