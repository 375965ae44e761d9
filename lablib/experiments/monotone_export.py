"""Monotone networks outside of Python: one self-contained C99 file, or an ONNX file, and the proof of what they hold.

Both compute head(g(z) + added z) in float32, the function of the module up to rounding. Units are stored place by
place instead of group by group, so that a sort is a few minima and maxima of whole vectors.
:func:`certify_export` reads the numbers back out of a file and bounds the slopes that they have.
"""

from pathlib import Path

import numpy as np
from torch import nn

from lablib.experiments.exported_c import c_text, check_name, read_c
from lablib.experiments.exported_numbers import Numbers, numbers_of
from lablib.experiments.exported_onnx import onnx_model, read_onnx
from lablib.files import atomic_write


def export_c(
    model: nn.Module,
    path: Path | str,
    *,
    name: str | None = None,
    mean: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
) -> Path:
    """Write one C99 file that needs only the standard library (-lm), and return its path.

        void <name>_forward(const float *x, float *y);                       one event: x (I,), y (O,)
        void <name>_forward_rows(const float *x, float *y, size_t rows);     x (rows, I), y (rows, O)

    Numbers are hexadecimal, so none is rounded again. Nothing is allocated, and nothing shared between calls. The
    file says in its first lines which slopes are proven of it.

    Args:
        model: a MonotoneNetwork, also a frozen one, a MonotonicWrapper, or a chain of linear layers with sorts
            between them, in evaluation mode. Weights in float64 are rounded to float32, and what is added to make
            slopes positive is raised where that asks for it.
        path: where to write, ending in .c.
        name: prefix of all names; default the file's name.
        mean, deviation: (I,), by which inputs are standardised first.

    Raises:
        ValueError: for a network that is not covered, or a name that C does not allow.
    """
    path = _path(path, ".c")
    text = c_text(check_name(path.stem if name is None else name), numbers_of(model, mean, deviation))
    with atomic_write(path) as file:
        file.write(text)
    return path


def export_onnx(
    model: nn.Module,
    path: Path | str,
    *,
    mean: np.ndarray | None = None,
    deviation: np.ndarray | None = None,
) -> Path:
    """Write an ONNX file with input "x" (rows, I) and output "y" (rows, O), both float32; return its path.

    Args, Raises: as :func:`export_c`; the path ends in .onnx. Needs the package ``onnx``.
    """
    path = _path(path, ".onnx")
    content = onnx_model(path.stem, numbers_of(model, mean, deviation)).SerializeToString(deterministic=True)
    with atomic_write(path, "wb") as file:
        file.write(content)
    return path


def certify_export(path: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Return proven bounds (low, high), (O, I) float64, of every slope of an exported file, before its head.

    The numbers are read back from the file, whose code or graph must be what is exported for them, and the bounds
    are rounded outward: they hold for the real function of these numbers and all inputs.

    Raises:
        ValueError: if the file is missing, damaged, or was not made here; the message names it.
    """
    return _read(path)[1].slopes()


def c_interface(path: Path | str) -> tuple[str, int, int]:
    """Return name, inputs and outputs of the network in an exported C file. Raises as :func:`certify_export`."""
    name, numbers = _read(_path(path, ".c"))
    return name, numbers.inputs, numbers.outputs


def _path(path: Path | str, ending: str) -> Path:
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"the file is to end in {ending}, got {path.name!r}")
    return path


def _read(path: Path | str) -> tuple[str, Numbers]:
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".onnx":
            return path.stem, read_onnx(content)
        return read_c(content.decode())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; export the network first") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror}); give an exported file") from None
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(f"{path} cannot be read: {error}") from None
