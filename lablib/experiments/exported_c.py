"""Exported networks as one C99 file: writing it, and reading the numbers back."""

import itertools
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import numpy as np

from lablib.experiments.exported_numbers import Numbers, by_group, by_place

HEADS = {
    "sigmoid": "1.0f / (1.0f + expf(-y[o]))",
    "softplus": "fmaxf(y[o], 0.0f) + log1pf(expf(-fabsf(y[o])))",
}
HELPERS = """
/* y += x W, W (inputs, outputs) */
static inline void @NAME@_add(const float *x, int inputs, const float *weight, int outputs, float *restrict y)
{
    for (int o = 0; o < outputs; o++) {
        float sum = y[o];
        for (int i = 0; i < inputs; i++)
            sum += x[i] * weight[i * outputs + o];
        y[o] = sum;
    }
}

/* sort (h[g], h[g + groups], h[g + 2 groups], ...) for each group g */
static inline void @NAME@_sort(float *h, int size, int groups)
{
    for (int last = size - 1; last > 0; last--)
        for (int k = 0; k < last; k++)
            for (int g = 0; g < groups; g++) {
                const float a = h[k * groups + g], b = h[(k + 1) * groups + g];
                h[k * groups + g] = a < b ? a : b;
                h[(k + 1) * groups + g] = a < b ? b : a;
            }
}
"""
ROWS = """
void @NAME@_forward_rows(const float *x, float *y, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        @NAME@_forward(x + r * @I@, y + r * @O@);
}
"""


def check_name(name: str) -> str:
    """Return ``name`` if C allows names that start with it; raise ValueError otherwise."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise ValueError(f"{name!r} is no name in C; give name= with letters, digits and underscores")
    return name


def c_text(name: str, numbers: Numbers) -> str:
    """Return the file: what is proven of it, then the code."""
    low, high = numbers.slopes()
    said = [
        f"/* {name}: a network in float32, {numbers.inputs} inputs, {numbers.outputs} outputs.",
        " * Slopes before the head, proven for the real function of these numbers and all inputs:",
        *(
            f" *   output {o}, input {i}: {_decimal(low[o, i], ROUND_FLOOR)} to {_decimal(high[o, i], ROUND_CEILING)}"
            for o, i in np.ndindex(*low.shape)
        ),
        " * Units before a sort are stored place by place: the first of each group, then the second of each, ... */",
    ]
    return "\n".join(said) + "\n" + _code(name, numbers)


def read_c(text: str) -> tuple[str, Numbers]:
    """Return name and numbers of a file of :func:`c_text`.

    Raises:
        ValueError: if the code is not exactly what these numbers are exported as.
    """
    named = re.search(r"^void (\w+)_forward\(", text, re.MULTILINE)
    if named is None:
        raise ValueError("it is no exported network; export it again")
    name = named[1]
    try:
        arrays = _arrays(name, text)
        depth = sum(key.startswith("weight_") for key in arrays)
        stored = Numbers(
            weights=[np.ascontiguousarray(arrays[f"weight_{k}"].T) for k in range(depth)],
            biases=[arrays[f"bias_{k}"] for k in range(depth)],
            sizes=[int(size) for size in re.findall(rf"^    {name}_sort\(\w+, (\d+), \d+\);$", text, re.M)],
            added=np.ascontiguousarray(arrays["added"].T) if "added" in arrays else None,
            head=next((head for head, code in HEADS.items() if f"y[o] = {code};" in text), None),
            mean=arrays.get("mean"),
            factor=arrays.get("factor"),
        )
        numbers = by_group(stored)
        (said, _, code), (own_words, _, own_code) = (
            part.partition("*/\n") for part in (text, c_text(name, numbers))
        )
    except (KeyError, IndexError, ValueError, OverflowError):
        code, own_code = None, ""
    if code != own_code:
        raise ValueError("its code is not what is exported for its numbers; export it again")
    if not _same_claims(said, own_words):
        raise ValueError("its first lines do not say what is proven of its numbers; export it again")
    return name, numbers


def _arrays(name: str, text: str) -> dict[str, np.ndarray]:
    found = re.findall(rf"^static const float {name}_(\w+?)((?:\[\d+\])+) = (.*?);$", text, re.M | re.S)
    return {
        key: np.array(
            [float.fromhex(v) for v in re.findall(r"(-?0x[0-9a-f.]+p[+-]\d+)f", body)], np.float32
        ).reshape([int(n) for n in re.findall(r"\d+", shape)])
        for key, shape, body in found
    }


def _same_claims(said: str, own: str) -> bool:
    """Whether a comment says the same slopes, up to rounding on another machine, and nothing besides: no code."""
    (given, low, high), (words, own_low, own_high) = (
        [re.split(r"(\S+) to (\S+)$", text, flags=re.MULTILINE)[k::3] for k in range(3)]
        for text in (said, own)
    )
    if given != words:
        return False
    try:
        claimed = np.array([low, high], dtype=np.float64)
    except ValueError:
        return False
    proven = np.array([own_low, own_high], dtype=np.float64)
    close = np.abs(claimed - proven) <= 1e-5 * np.abs(proven) + 1e-12 * np.abs(proven).max()
    unproven = (claimed[0] >= 0) & (proven[0] < 0), (claimed[1] <= 0) & (proven[1] > 0)
    return bool(close.all() and not np.any(unproven))


def _code(name: str, numbers: Numbers) -> str:
    weights, biases = by_place(numbers)
    arrays = {f"weight_{k}": weight.T for k, weight in enumerate(weights)}  # one row per input
    arrays |= {f"bias_{k}": bias for k, bias in enumerate(biases)}
    added = None if numbers.added is None else numbers.added.T
    arrays |= {"added": added, "mean": numbers.mean, "factor": numbers.factor}
    lines = ["#include <math.h>", "#include <stddef.h>", "#include <string.h>", ""]
    lines += [_array(f"{name}_{key}", values) for key, values in arrays.items() if values is not None]
    body = _body(name, numbers)
    lines += [
        HELPERS.replace("@NAME@", name),
        f"void {name}_forward(const float *x, float *y)",
        "{",
        *body,
        "}",
    ]
    rows = (
        ROWS.replace("@NAME@", name).replace("@I@", str(numbers.inputs)).replace("@O@", str(numbers.outputs))
    )
    return "\n".join(lines) + "\n" + rows


def _body(name: str, numbers: Numbers) -> list[str]:
    widths = [numbers.inputs, *map(len, numbers.weights)]
    lines = [f"float z[{numbers.inputs}];"]
    lines += [f"float h{k}[{width}];" for k, width in enumerate(widths[1:-1])]
    if numbers.factor is None:
        lines += ["memcpy(z, x, sizeof z);"]
    else:
        lines += [f"for (int i = 0; i < {numbers.inputs}; i++)"]
        lines += [f"    z[i] = (x[i] - {name}_mean[i]) * {name}_factor[i];"]
    before = "z"
    for k, (width, after) in enumerate(itertools.pairwise(widths)):
        to = f"h{k}" if k < len(numbers.sizes) else "y"
        lines += [f"memcpy({to}, {name}_bias_{k}, sizeof {name}_bias_{k});"]
        lines += [f"{name}_add({before}, {width}, {name}_weight_{k}[0], {after}, {to});"]
        if k < len(numbers.sizes):
            lines += [f"{name}_sort({to}, {numbers.sizes[k]}, {after // numbers.sizes[k]});"]
        before = to
    if numbers.added is not None:
        lines += [f"{name}_add(z, {numbers.inputs}, {name}_added[0], {numbers.outputs}, y);"]
    if numbers.head is not None:
        lines += [f"for (int o = 0; o < {numbers.outputs}; o++)", f"    y[o] = {HEADS[numbers.head]};"]
    return [f"    {line}" for line in lines]


def _array(name: str, values: np.ndarray) -> str:
    shape = "".join(f"[{n}]" for n in values.shape)
    rows = [", ".join(_hex(v) for v in row) for row in np.atleast_2d(values)]
    content = f"{{{rows[0]}}}" if values.ndim == 1 else "{\n    {" + "},\n    {".join(rows) + "},\n}"
    return f"static const float {name}{shape} = {content};"


def _hex(value: np.float32) -> str:
    digits, power = float(value).hex().split("p")
    return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}p{power}f"


def _decimal(value: float, rounding: str) -> str:
    return str(Context(prec=6, rounding=rounding).create_decimal(Decimal(value)))
