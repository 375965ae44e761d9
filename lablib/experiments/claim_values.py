"""Numbers out of result files, by expressions that a claim stores beside the number.

A path is the name of a result file, a colon, and steps into its record: ``boolean_gap:metrics.reached``,
``denoising:metrics.rows[sigma=5, activation=spline].psnr``, ``trigger:arrays.rate``.

- ``.name`` or ``."any text"`` enters a dict, ``[0]`` a list, ``[*]`` all of a list (or of a dict's values);
- ``[key=value, key!=value]`` keeps the members of a list with that value: a number, ``true``, ``null``, a list, or
  text, in quotes where it holds a comma or a bracket;
- ``arrays`` are those of the npz file beside the JSON file.

Paths are combined by ``+ - * /`` (entry by entry), numbers, parentheses and :data:`REDUCTIONS`, as in
``100 * median(a:metrics.x) - max(b:metrics.rows[*].y)``. A whole expression is one number, or one truth value.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

REDUCTIONS: dict[str, Callable[[np.ndarray], Any]] = {
    "min": np.min,
    "max": np.max,
    "mean": np.mean,
    "median": np.median,
    "std": np.std,
    "sum": np.sum,
    "abs": np.abs,
    "any": np.any,
    "all": np.all,
    "count": np.size,  # how many entries
    "missing": lambda values: np.isnan(values).sum(),  # how many of them are null
}
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_QUOTED = r'"[^"]*"'
_INSIDE = rf"\[(?:[^\[\]\"]|{_QUOTED}|\[[^\[\]]*\])*\]"
_STEP = re.compile(rf"\.?([A-Za-z_]\w*)|\.?({_QUOTED})|({_INSIDE})")
_TOKEN = re.compile(
    rf"\s*(?:(?P<call>[a-z]+)\(|(?P<path>[A-Za-z][\w.\-]*:(?:{_STEP.pattern})+)"
    rf"|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)|(?P<sign>[-+*/()]))"
)
_CONDITION = re.compile(rf"\s*(\w+)(!?=)\s*({_QUOTED}|\[[^\[\]]*\]|[^,]*)\s*(?:,|$)")

Records = Callable[[str], Mapping[str, Any]]


def results_of(expression: str) -> list[str]:
    """Return the names of the result files that an expression reads, each once.

    Raises:
        ValueError: if the expression cannot be read.
    """
    paths = (value for kind, value in _tokens(expression) if kind == "path")
    return list(dict.fromkeys(path.partition(":")[0] for path in paths))


def evaluate(expression: str, records: Records) -> float | bool:
    """Return the value of an expression.

    Args:
        expression: as the docstring of this module says.
        records: name of a result -> its record, with the arrays under ``"arrays"``; what it raises is passed on.

    Raises:
        ValueError: if the expression cannot be read, a path leads nowhere, or the value is no finite number.
    """
    tokens = _tokens(expression)
    value = _sum(tokens, records)
    if tokens:
        raise ValueError(f"{expression!r} goes on with {tokens[0][1]!r} where it should end")
    entries = np.ravel(_numbers(value))
    if entries.size != 1:
        raise ValueError(
            f"{expression!r} is {entries.size} numbers; reduce them by one of {', '.join(REDUCTIONS)}"
        )
    if entries.dtype == bool:
        return bool(entries[0])
    if not np.isfinite(entries[0]):
        raise ValueError(f"{expression!r} is {entries[0]}; name a path to numbers")
    return float(entries[0])


def _tokens(expression: str) -> list[tuple[str, str]]:
    found, at, text = [], 0, expression.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"{expression!r} cannot be read from {text[at:].strip()!r} on")
        found.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    if not found:
        raise ValueError("an expression is empty; leave the result out where there is none")
    return found


def _sum(tokens: list[tuple[str, str]], records: Records) -> Any:
    return _chain(
        tokens, records, "+-", lambda: _chain(tokens, records, "*/", lambda: _term(tokens, records))
    )


def _chain(tokens: list[tuple[str, str]], records: Records, signs: str, part: Callable[[], Any]) -> Any:
    value = part()
    while tokens and tokens[0][0] == "sign" and tokens[0][1] in signs:
        combine = _ARITHMETIC[tokens.pop(0)[1]]
        left, right = _numbers(value), _numbers(part())
        if left.size != right.size and 1 not in (left.size, right.size):
            raise ValueError(f"{left.size} and {right.size} numbers cannot be combined entry by entry")
        with np.errstate(all="ignore"):  # what is not finite in the end is refused
            value = combine(left, right)
    return value


def _term(tokens: list[tuple[str, str]], records: Records) -> Any:
    kind, text = tokens.pop(0) if tokens else ("", "the end")
    if kind == "number":
        return np.array([float(text)])
    if kind == "path":
        return _follow(text, records)
    if (kind == "call" and text in REDUCTIONS) or (kind, text) == ("sign", "("):
        value = _sum(tokens, records)
        if not tokens or tokens.pop(0) != ("sign", ")"):
            raise ValueError("a parenthesis is not closed")
        return _reduced(text, value) if kind == "call" else value
    raise ValueError(f"{text!r} stands where a path, a number or one of {', '.join(REDUCTIONS)} should")


def _reduced(name: str, value: Any) -> np.ndarray:
    if name == "count":
        return np.array([float(len(value))])
    numbers = _numbers(value)
    if not numbers.size:
        raise ValueError(f"{name} of nothing")
    return np.ravel(REDUCTIONS[name](numbers))


def _numbers(value: Any) -> np.ndarray:
    """Turn leaves into a flat array; null is NaN."""
    if isinstance(value, np.ndarray):
        return value
    flat = [np.ravel(np.array(np.nan if leaf is None else leaf)) for leaf in value]
    for part in flat:
        if part.dtype.kind not in "biuf":
            raise ValueError(f"{part.tolist()[:1]} is no number")
    return np.concatenate(flat) if flat else np.array([])


def _follow(path: str, records: Records) -> list[Any]:
    """Return the leaves that a path leads to, lists unrolled."""
    name, _, steps = path.partition(":")
    nodes: list[Any] = [records(name)]
    for step in _STEP.finditer(steps):
        key, quoted, inside = step.groups()
        if inside:
            nodes = [member for node in nodes for member in _members(node, inside[1:-1].strip(), path)]
        else:
            nodes = [_entered(node, key or quoted[1:-1], path) for node in nodes]
    return [leaf for node in nodes for leaf in _leaves(node)]


def _entered(node: Any, key: str, path: str) -> Any:
    if not isinstance(node, Mapping) or key not in node:
        there = f"; there are: {', '.join(map(str, node))}" if isinstance(node, Mapping) else ""
        raise ValueError(f"{path} leads nowhere: no {key!r}{there}")
    return node[key]


def _members(node: Any, choice: str, path: str) -> list[Any]:
    members = list(node.values()) if isinstance(node, Mapping) else node
    if isinstance(members, np.ndarray):
        members = list(members)
    if not isinstance(members, list):
        raise ValueError(f"{path} leads nowhere: [{choice}] of what is no list")
    if choice == "*":
        return members
    if re.fullmatch(r"\d+", choice):
        if int(choice) >= len(members):
            raise ValueError(f"{path} leads nowhere: [{choice}] of {len(members)}")
        return [members[int(choice)]]
    conditions = _CONDITION.findall(choice)
    if not conditions:
        raise ValueError(f"{path} cannot be read: [{choice}]")
    found = [member for member in members if all(_meets(member, *one) for one in conditions)]
    if not found:
        raise ValueError(f"{path} leads nowhere: nothing has [{choice}]")
    return found


def _meets(member: Any, key: str, sign: str, text: str) -> bool:
    try:
        wanted = json.loads(text)
    except ValueError:
        wanted = text.strip()
    same = isinstance(member, Mapping) and key in member and member[key] == wanted
    return same if sign == "=" else not same


def _leaves(node: Any) -> list[Any]:
    return [leaf for part in node for leaf in _leaves(part)] if isinstance(node, list) else [node]
