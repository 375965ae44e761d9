"""Published packages under the soundness battery: which claimed constants break, in which state, and how."""

import copy
import dataclasses
import pickle
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from torch import nn

import lablib
from lablib.experiments.battery import STATES, Case, Finding, claim_of, examine, norms_of, refutes
from lablib.experiments.layer_cases import own_cases
from lablib.experiments.peer_cases import deel_cases, monotonic_cases, orthogonium_cases
from lablib.experiments.recipe import Recipe

PACKAGES: dict[str, Callable[[], list[Case]]] = {
    "lablib": own_cases,
    "deel-torchlip": deel_cases,
    "orthogonium": orthogonium_cases,
    "monotonicnetworks": monotonic_cases,
}
# What a peer may exceed its claim by: ten times the widest tolerance any of them documents for its default
# settings (orthogonium, 1e-4). Our own layers get only the rounding of the measurement.
PEER_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True)
class PeerConfig:
    """``seeds``: how many times each layer is built, trained and searched."""

    seeds: int


def run(config: PeerConfig) -> dict[str, Any]:
    """Examine every case; return versions, one row per layer, and the monotone and behavioural checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages under test
        rows = [row for name, cases in PACKAGES.items() for row in package_rows(name, cases(), config.seeds)]
        slopes = monotone_rows()
        behaviours = behaviour_rows()
    versions = {"lablib": lablib.__version__} | {name: metadata.version(name) for name in list(PACKAGES)[1:]}
    return {
        "versions": versions,
        "tolerance": PEER_TOLERANCE,
        "rows": rows,
        "slopes": slopes,
        "behaviours": behaviours,
    }


def package_rows(package: str, cases: list[Case], seeds: int) -> list[dict[str, Any]]:
    """Return one row per case: claim, largest measured constant, verdict, state and how."""
    tolerance = None if package == "lablib" else PEER_TOLERANCE
    return [case_row(package, case, seeds, tolerance) for case in cases]


def case_row(package: str, case: Case, seeds: int, tolerance: float | None) -> dict[str, Any]:
    """Return the row of one layer. ``remarks`` lists what failed without touching the constant."""
    findings = [finding for seed in range(seeds) for finding in examine(case, seed)]
    claim = claim_of(case, case.build())
    counted = [f for f in findings if f.how in ("jacobian", "pair")]
    # Of equal values the earliest state: that one is enough.
    worst = max(counted, key=lambda f: (round(f.value, 6), -STATES.index(f.state)))
    breaks = any(refutes(f, claim, tolerance) for f in counted)
    return {
        "package": package,
        "layer": case.name,
        "norms": list(norms_of(case, case.build())),
        "claim": claim,
        "measured": worst.value,
        "verdict": "breaks" if breaks else "holds",
        "state": worst.state,
        "how": worst.how,
        "why": case.note if breaks else "",
        "remarks": sorted(_remarks(findings, claim)),
    }


def _remarks(findings: list[Finding], claim: float) -> set[str]:
    remarks = {f"{f.state} {f.how}" for f in findings if f.how.startswith("fails")}
    if any(f.how == "nan" for f in findings):
        remarks.add("the gradient is NaN at some sample point")
    wrong = [f.value for f in findings if f.how == "autograd" and f.value > claim * (1 + PEER_TOLERANCE)]
    if wrong:
        remarks.add(f"autograd shows a slope of {max(wrong):.3f} at ties, which no pair of points has")
    return remarks


# --- monotone networks: the claim is a slope >= 0
# ------------------------------------------------------------


def monotone_rows() -> list[dict[str, Any]]:
    """Return the smallest slopes of networks claimed to be increasing, each trained on the line -3 x."""
    cap = 3.0 ** (1 / 3)
    default = _fit_line(_increasing("one-inf", "one-inf", "one-inf"))
    right = _fit_line(_increasing("one-inf", "inf", "inf"))
    loaded = _increasing("one-inf", "inf", "inf", cap=cap, lipschitz_const=3.0)
    loaded.load_state_dict(right.state_dict())
    steps = _float32_steps(right)
    return [
        _slope_row(
            "MonotonicWrapper, default kind in 3 layers", _slope(default), "l1 -> linf caps do not chain"
        ),
        _slope_row("MonotonicWrapper, one-inf then inf", _slope(right), ""),
        _slope_row(
            "MonotonicWrapper of cap 3, state loaded from cap 1",
            _slope(loaded),
            "the wrapper's cap is in the state, the layers' caps are not",
        ),
        _slope_row(
            "MonotonicWrapper, one-inf then inf, evaluated in float32",
            steps["smallest"],
            f"{100 * steps['share']:.0f} % of the steps of a grid go down: exact only up to rounding",
        ),
    ]


def _slope_row(network: str, smallest: float, why: str) -> dict[str, Any]:
    # Up to 1e-9 is the rounding of float64 differences.
    verdict = "breaks" if smallest < -1e-9 else "holds"
    return {
        "package": "monotonicnetworks",
        "network": network,
        "claim": 0.0,
        "measured": smallest,
        "verdict": verdict,
        "why": why if verdict == "breaks" else "",
    }


def _increasing(*kinds: str, cap: float = 1.0, lipschitz_const: float = 1.0) -> nn.Module:
    import monotonicnetworks as T

    torch.manual_seed(0)
    first, middle, last = kinds
    inner = nn.Sequential(
        T.LipschitzLinear(1, 16, kind=first, lipschitz_const=cap),
        T.GroupSort(8),
        T.LipschitzLinear(16, 16, kind=middle, lipschitz_const=cap),
        T.GroupSort(8),
        T.LipschitzLinear(16, 1, kind=last, lipschitz_const=cap),
    )
    return T.MonotonicWrapper(inner, lipschitz_const=lipschitz_const, monotonic_constraints=[1])


def _fit_line(network: nn.Module, steps: int = 300) -> nn.Module:
    x = torch.linspace(-1, 1, 101)[:, None]
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        (network(x) + 3 * x).square().mean().backward()
        optimiser.step()
    return network.eval()


def _slope(network: nn.Module) -> float:
    x = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        return float((copy.deepcopy(network).double()(x).diff(dim=0) / x.diff(dim=0)).min())


def _float32_steps(network: nn.Module) -> dict[str, float]:
    x = torch.linspace(-1, 1, 2001)[:, None]
    with torch.no_grad():
        steps = network(x).double().diff(dim=0)
    return {"smallest": float(steps.min()), "share": float((steps < 0).double().mean())}


# --- behaviour that is not a constant
# ------------------------------------------------------------------------


def behaviour_rows() -> list[dict[str, Any]]:
    """Return documented uses that fail or do something else: (package, use, expected, seen, ok)."""
    import monotonicnetworks as M
    from orthogonium import layers as O

    wrapper = M.MonotonicWrapper(M.LipschitzLinear(2, 1, kind="one"))
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    sorted_middle = x.unflatten(1, (2, 2)).sort(2).values.flatten(1, 2)
    negative = M.LipschitzLinear(6, 5, kind="one", lipschitz_const=-1.0)
    with torch.no_grad():
        negative.parametrizations.weight.original.fill_(7.0)
    uses = [
        ("torch", "parametrizations.orthogonal stays orthonormal under weight decay", _decayed_orthogonal),
        (
            "monotonicnetworks",
            "GroupSort(2, axis=-2) sorts along axis -2",
            lambda: _same(M.GroupSort(2, -2)(x), sorted_middle),
        ),
        (
            "monotonicnetworks",
            "MonotonicWrapper takes a 1-D input",
            lambda: _shape(wrapper(torch.ones(2)), (1,)),
        ),
        (
            "monotonicnetworks",
            "MonotonicWrapper takes a 3-D input",
            lambda: _shape(wrapper(torch.ones(4, 3, 2)), (4, 3, 1)),
        ),
        ("monotonicnetworks", "LipschitzLinear is pickled", lambda: bool(pickle.dumps(wrapper))),
        (
            "monotonicnetworks",
            "a negative lipschitz_const is refused or capped",
            lambda: bool(negative.weight.abs().sum(0).max() <= 1),
        ),
        (
            "orthogonium",
            "HouseHolder refuses a 2-D input or keeps its shape",
            lambda: _shape(O.HouseHolder(4)(torch.ones(2, 4)), (2, 4)),
        ),
        ("orthogonium", "BatchCentering2D's state is loaded after training", _reload_centering),
        (
            "orthogonium",
            "OrthoLinear runs in float64",
            lambda: _shape(O.OrthoLinear(4, 3).double()(torch.ones(2, 4).double()), (2, 3)),
        ),
    ]
    return [_behaviour(*use) for use in uses]


def _behaviour(package: str, use: str, attempt: Callable[[], bool]) -> dict[str, Any]:
    try:
        ok, seen = attempt(), ""
    except Exception as error:  # whatever the package raises is the answer
        ok, seen = False, f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return {
        "package": package,
        "use": use,
        "ok": bool(ok),
        "seen": seen or ("as expected" if ok else "another result"),
    }


def _same(made: torch.Tensor, expected: torch.Tensor) -> bool:
    return made.shape == expected.shape and bool(torch.equal(made, expected))


def _shape(made: torch.Tensor, expected: tuple[int, ...]) -> bool:
    return tuple(made.shape) == expected


def _decayed_orthogonal() -> bool:
    layer = torch.nn.utils.parametrizations.orthogonal(nn.Linear(8, 6))
    with torch.no_grad():
        layer.parametrizations.weight.original.mul_(0.999)
        return bool(torch.linalg.svdvals(layer.weight).min() > 0.99)


def _reload_centering() -> bool:
    from orthogonium import layers as O

    used = O.BatchCentering2D(4)
    used(torch.ones(2, 4, 3, 3))
    return bool(O.BatchCentering2D(4).load_state_dict(used.state_dict()))


def draw(record: dict[str, Any]) -> dict[str, Any]:
    """Return the dot plot of measured constant over claim, layer by layer."""
    from lablib.plots.peers import constants_against_claims

    metrics = record["metrics"]
    return {"peer_battery": constants_against_claims(metrics["rows"], metrics["versions"])}


RECIPE = Recipe(
    name="peer_battery",
    question="Which published Lipschitz guarantees survive the battery that every layer here passes?",
    sizes={"quick": PeerConfig(seeds=1), "standard": PeerConfig(seeds=3), "full": PeerConfig(seeds=5)},
    run=run,
    draw=draw,
)
