"""Our GPU kernels against their peers and against ceilings measured on the same card in the same process.

Times are medians of CUDA event pairs, ours and the peer's by turns. A ceiling is the rate of the same arithmetic on
registers alone (:func:`lablib.experiments.gpu_peer.rate_kernel`). Before it is timed, every side is compared with
float64 on a few rows.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lablib.experiments import gpu_peer
from lablib.experiments.results import write_result
from lablib.experiments.spline_bench import gather_form
from lablib.ops.linf_dist import cuda as linf
from lablib.ops.sortnet import cuda as top
from lablib.ops.splines import cuda as splines

SHAPES = ((128, 784, 1024), (512, 784, 5120), (512, 5120, 5120))  # (B, I, O)
SPLINE_SHAPES = ((512, 1024), (32, 64, 40, 40))
KNOTS = (21, 51, 101)
POWERS = (8.0, 64.0, 1000.0, 1024.0)
KEEP = 0.75
ROWS = 32
CHECKED_ROWS = 2
BROADCAST_BYTES = 2**31  # a peer that holds (B, O, I) is asked only where that fits
ROUNDS, PROGRAMS = 2000, 4224  # of a ceiling: 32 programs for each of 132 multiprocessors

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Contest:
    """One line of the table: ours, the peers by name, what is expected, and the ceiling's kind."""

    name: str
    pairs: float
    ceiling: str
    ours: Call
    peers: dict[str, Call]
    exact: Callable[[], Tensor] | None


def run(words: list[str], repeat: int) -> int:
    """Print the table of the comparisons whose names hold all words and store it as the result ``gpu_bench``."""
    if not torch.cuda.is_available():
        raise ValueError("no CUDA device here: run lablib bench without --device cuda for the CPU kernels")
    start, device = time.perf_counter(), torch.cuda.get_device_name(0)
    rates = ceilings(repeat)
    print(f"device: {device}; medians of {repeat} turns each by CUDA events")
    for kind, rate in rates.items():
        print(f"ceiling {kind:14} {rate:.3e} {'bytes/s' if kind == 'copy' else 'pairs/s'}")
    lines = []
    for contest in contests():
        if all(word.lower() in contest.name.lower() for word in words):
            lines.append(measure(contest, rates, repeat))
            print(describe(lines[-1]), flush=True)
    if not lines:
        raise ValueError(f"no comparison has the words {' '.join(words)}; run without words to see all")
    if not words:
        metrics = {"ceilings": rates, "contests": lines}
        seconds = time.perf_counter() - start
        write_result(
            "gpu_bench",
            mode="full",
            config={"repeat": repeat},
            metrics=metrics,
            seconds=seconds,
            device=device,
        )
    return 0


def ceilings(repeat: int) -> dict[str, float]:
    """Return pairs (x_i, w_ki) per second of each kind of arithmetic on registers, and bytes per second of a copy."""
    gpu_peer.load()
    sink = torch.empty(PROGRAMS, gpu_peer.LANES, device="cuda")
    kinds = {"fma": ("fma", 1), "max": ("max", 1)}
    for p in POWERS:
        steps, _ = linf.power_steps(p)
        if steps > 0:
            kinds |= {f"power {p:g}": ("power", steps), f"gradient {p:g}": ("gradient", steps)}
    rates = {}
    for name, (kind, steps) in kinds.items():

        def call(kind: str = kind, steps: int = steps) -> None:
            gpu_peer.rate_kernel[(PROGRAMS,)](
                sink, 0.5, 1e-6, ROUNDS, KIND=kind, STEPS=steps, TILE=gpu_peer.TILE, LANES=gpu_peer.LANES,
                num_warps=2, enable_fp_fusion=True,
            )  # fmt: skip

        pairs = float(PROGRAMS) * gpu_peer.TILE * gpu_peer.LANES * ROUNDS
        rates[name] = pairs / take_turns([call], repeat)[0]
    source = torch.rand(2**29, device="cuda")  # 2 GiB, many times the L2 cache
    target = torch.empty_like(source)
    rates["copy"] = 2 * source.nbytes / take_turns([lambda: target.copy_(source)], repeat)[0]
    return rates


def measure(contest: Contest, rates: dict[str, float], repeat: int) -> dict:
    """Return one line of the table: seconds of each side, ratios, share of the ceiling, error against float64."""
    expected = contest.exact() if contest.exact else None
    sides, errors = {"ours": contest.ours}, {}
    for name, call in (sides | contest.peers).items():
        try:
            made = call()
        except RuntimeError as error:
            if name == "ours":
                raise
            print(
                f"left out: {name} in {contest.name}: {str(error).splitlines()[0]}"
            )  # out of memory, mostly
            continue
        sides[name] = call
        made = made[0] if isinstance(made, tuple) else made
        if expected is not None:
            part = made[: len(expected)].double()
            errors[name] = float((part - expected).norm() / expected.norm())
    seconds = dict(zip(sides, take_turns(list(sides.values()), repeat)))
    line = {"name": contest.name, "pairs": contest.pairs, "seconds": seconds}
    line["errors"] = {name: value if math.isfinite(value) else "not finite" for name, value in errors.items()}
    line["ratios"] = {name: seconds[name] / seconds["ours"] for name in sides if name != "ours"}
    if contest.ceiling in rates:
        line["share_of_ceiling"] = contest.pairs / rates[contest.ceiling] / seconds["ours"]
    return line


def describe(line: dict) -> str:
    """Return one printed line of the table."""
    share = f" {line['share_of_ceiling']:4.0%} of ceiling" if "share_of_ceiling" in line else ""
    error = line["errors"].get("ours", "")
    error = f", error {error:.0e}" if isinstance(error, float) else f" {error}" if error else ""
    ratios = "".join(f" | {ratio:.1f} x {name}" for name, ratio in line["ratios"].items())
    return f"{line['name']:45} {1e3 * line['seconds']['ours']:9.3f} ms{share}{error}{ratios}"


def take_turns(calls: list[Call], repeat: int) -> list[float]:
    """Return the median seconds of each call on the device; they alternate, after two rounds that warm up."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeat + 2):
        for call, taken in zip(calls, times):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 2:
                taken.append(begin.elapsed_time(end) / 1e3)
    return [statistics.median(taken) for taken in times]


def contests(device: str = "cuda", shapes=SHAPES, spline_shapes=SPLINE_SHAPES):
    """Yield the comparisons one after the other, so that only one holds memory."""
    for shape in shapes:
        yield from _linf(device, *shape)
        for p in POWERS:
            yield from _lp(device, p, *shape)
        yield from _top(device, *shape)
    yield from _masked(device, *shapes[-1])
    for shape in spline_shapes:
        yield from _splines(device, shape)


def _linf(device: str, batch: int, inputs: int, outputs: int):
    x, w = torch.randn(batch, inputs, device=device), torch.randn(outputs, inputs, device=device)
    size, pairs = f"({batch}, {inputs}, {outputs})", float(batch) * inputs * outputs
    peers: dict[str, Call] = {"cdist": lambda: torch.cdist(x, w, p=math.inf)}
    if 4 * pairs <= BROADCAST_BYTES:
        peers["compiled broadcast"] = lambda: _compiled_linf()(x, w)
    yield Contest(
        f"l_inf forward {size}", pairs, "max", lambda: linf.linf_forward(x, w, None, None, ROWS)[0], peers,
        lambda: _differences(x, w).abs().amax(-1),
    )  # fmt: skip
    naive = {"broadcast": lambda: _bounds(x, x + 0.1, w)} if 16 * pairs <= BROADCAST_BYTES else {}
    yield Contest(
        f"l_inf bounds {size}", pairs, "", lambda: linf.linf_bounds_forward(x, x + 0.1, w)[:2], naive, None
    )


def _lp(device: str, p: float, batch: int, inputs: int, outputs: int):
    x, w = torch.randn(batch, inputs, device=device), torch.randn(outputs, inputs, device=device)
    grad = torch.randn(batch, outputs, device=device)
    size, pairs = f"p = {p:g} ({batch}, {inputs}, {outputs})", float(batch) * inputs * outputs
    y = linf.lp_forward(x, w, p, None, None, ROWS)

    def exact() -> Tensor:
        distances = _differences(x, w).abs()
        most = distances.amax(-1, keepdim=True)
        return most[..., 0] * ((distances / most) ** p).sum(-1) ** (1 / p)

    def exact_dx() -> Tensor:
        distances, norms = _differences(x, w), exact()[..., None]
        slope = distances.sign() * (distances.abs() / norms) ** (p - 1)
        return (grad[:CHECKED_ROWS, :, None] * slope).sum(1)

    def both() -> tuple:
        return linf.lp_backward(grad, x, w, linf.lp_forward(x, w, p, None, None, ROWS), p, None, None, ROWS)

    forward: dict[str, Call] = {"pow": lambda: gpu_peer.pow_forward(x, w, p)}
    if 4 * pairs <= BROADCAST_BYTES:
        forward["compiled pow"] = lambda: _compiled_lp()(x, w, p)
    yield Contest(
        f"l_p forward {size}", pairs, f"power {p:g}",
        lambda: linf.lp_forward(x, w, p, None, None, ROWS), forward, exact,
    )  # fmt: skip
    yield Contest(
        f"l_p backward {size}", pairs, f"gradient {p:g}",
        lambda: linf.lp_backward(grad, x, w, y, p, None, None, ROWS),
        {"pow": lambda: gpu_peer.pow_backward(grad, x, w, y, p)}, exact_dx,
    )  # fmt: skip
    yield Contest(
        f"l_p forward+backward {size}", pairs, "", both,
        {"pow": lambda: gpu_peer.pow_backward(grad, x, w, gpu_peer.pow_forward(x, w, p), p)}, exact_dx,
    )  # fmt: skip


def _top(device: str, batch: int, inputs: int, outputs: int):
    from lablib.ops.sortnet import geometric_weights

    x, c = torch.randn(batch, inputs, device=device), torch.randn(outputs, inputs, device=device)
    weight = geometric_weights(KEEP, 10).to(device).expand(outputs, -1)
    pairs = float(batch) * inputs * outputs

    def topk() -> Tensor:
        return ((x[:, None] + c).abs().topk(10, -1).values * weight).sum(-1)

    peers = {"topk": topk} if 16 * pairs <= BROADCAST_BYTES else {}
    yield Contest(
        f"top-10 forward ({batch}, {inputs}, {outputs})", pairs, "",
        lambda: top.topk_forward(x, c, weight)[0], peers,
        lambda: (_differences(x, -c).abs().topk(10, -1).values * weight.double()).sum(-1),
    )  # fmt: skip


def _masked(device: str, batch: int, inputs: int, outputs: int):
    """A hidden layer of a training step: what dropping inputs and outputs saves against the dense layer."""
    kept_in, kept_out = (round(KEEP * n) for n in (inputs, outputs))
    w, x = torch.randn(outputs, inputs, device=device), torch.randn(batch, kept_in, device=device)
    full, grad = torch.randn(batch, inputs, device=device), torch.randn(batch, kept_out, device=device)
    dense_grad = torch.randn(batch, outputs, device=device)
    ins, outs = (
        torch.rand(math.ceil(batch / ROWS), n, device=device).topk(k, -1).indices.sort(-1).values
        for n, k in ((inputs, kept_in), (outputs, kept_out))
    )
    for p in (8.0, 64.0, 1024.0):

        def step(x: Tensor, grad: Tensor, ins: Tensor | None, outs: Tensor | None, p: float = p) -> tuple:
            y = linf.lp_forward(x, w, p, ins, outs, ROWS)
            return linf.lp_backward(grad, x, w, y, p, ins, outs, ROWS)

        yield Contest(
            f"masked step, keep {KEEP}, p = {p:g} ({batch}, {inputs}, {outputs})",
            float(batch) * kept_in * kept_out, "",
            lambda step=step: step(x, grad, ins, outs),
            {"dense": lambda step=step: step(full, dense_grad, None, None)}, None,
        )  # fmt: skip


def _splines(device: str, shape: tuple[int, ...]):
    """Kernels of a training step, without autograd's own time on either side."""
    x, grad = (torch.randn(shape, device=device) for _ in range(2))
    rows, channels = shape[:2]
    x3, grad3 = (t.reshape(rows, channels, -1) for t in (x, grad))

    def relu() -> tuple:
        return torch.relu(x), torch.ops.aten.threshold_backward(grad, x, 0)

    for knots in KNOTS:
        values = torch.randn(channels, knots, device=device)

        def ours(values: Tensor = values) -> tuple:
            needs = (True, True, False)
            return splines.forward(x3, values, None, 3.0), splines.backward(
                grad3, x3, values, None, 3.0, needs
            )

        def gather(values: Tensor = values) -> tuple:
            sides = x.detach().requires_grad_(), values.detach().requires_grad_()
            return torch.autograd.grad(gather_form(*sides, 3.0), sides, grad)

        yield Contest(
            f"spline forward+backward, {knots} knots {shape}", float(x.numel()), "",
            ours, {"relu": relu, "gather": gather}, None,
        )  # fmt: skip


def _differences(x: Tensor, w: Tensor) -> Tensor:
    """x_i - w_ki of the first rows in float64, (CHECKED_ROWS, O, I)."""
    return x[:CHECKED_ROWS, None].double() - w.double()


def _bounds(lower: Tensor, upper: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    below, above = w - lower[:, None], upper[:, None] - w
    return torch.maximum(-below, -above).clamp(min=0).amax(-1), torch.maximum(below, above).amax(-1)


_compiled: dict[str, Callable] = {}


def _compiled_linf() -> Callable:
    return _compiled.setdefault("linf", torch.compile(lambda x, w: (x[:, None] - w).abs().amax(-1)))


def _compiled_lp() -> Callable:
    def distance(x: Tensor, w: Tensor, p: float) -> Tensor:
        size = (x[:, None] - w).abs()
        most = size.amax(-1, keepdim=True)
        return most[..., 0] * (size / most).pow(p).sum(-1).pow(1 / p)

    return _compiled.setdefault("lp", torch.compile(distance))
