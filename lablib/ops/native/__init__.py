"""The compiled CPU kernels of distances, SortNet and splines: C++ built on first use (build.py), and who runs.

``LABLIB_KERNELS`` chooses what computes those layers on the CPU: ``auto`` (the default: ``native`` where a compiler
is or was, else ``numba`` where that is installed, else ``reference``), or one of the three.
"""

import functools
import importlib.util
import os

from lablib.ops.native.build import BuildError, library

__all__ = ["BuildError", "CHOICES", "LIBRARIES", "choice", "kernels", "library"]

CHOICES = ("auto", "native", "numba", "reference")
LIBRARIES = ("linf_dist", "sortnet", "spline")


def kernels() -> str:
    """Return what is in use on the CPU: "native", "numba" or "reference".

    Raises:
        ValueError: if ``LABLIB_KERNELS`` is none of :data:`CHOICES`.
        BuildError: if it is "native" and the kernels cannot be built.
        ModuleNotFoundError: if it is "numba" and that is not installed.
    """
    return choice()[0]


def choice() -> tuple[str, str]:
    """Return what is in use on the CPU and, in one sentence, why. Raises as :func:`kernels`."""
    return _choose(os.environ.get("LABLIB_KERNELS", "auto"))


@functools.cache
def _choose(asked: str) -> tuple[str, str]:
    if asked not in CHOICES:
        raise ValueError(f"LABLIB_KERNELS is {asked!r}; choose one of {', '.join(CHOICES)}")
    refusal = f"LABLIB_KERNELS is {asked}"
    if asked in ("auto", "native"):
        try:
            for name in LIBRARIES:
                library(name)
        except BuildError as error:
            if asked == "native":
                raise
            refusal = str(error)
        else:
            return "native", "compiled C++"
    if asked != "reference" and importlib.util.find_spec("numba") is not None:
        return "numba", refusal
    if asked == "numba":
        raise ModuleNotFoundError("LABLIB_KERNELS is numba, which is not installed: pip install numba")
    return "reference", refusal
