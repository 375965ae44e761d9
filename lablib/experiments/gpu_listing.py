"""What the compiler made of the Triton kernels: registers, spills and machine instructions, with no GPU at hand.

Instructions of the inner loop over the pairs (row, output) of one input, against the arithmetic the formula needs,
are a bound on the share of the card's rate that a kernel can reach: nothing is timed here.
"""

import dataclasses
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from lablib.ops.gpu import LANES, TILE_ROWS

HOPPER = 90  # compute capability 9.0
INDICES = {"kept_in", "kept_out"}
WINNERS = {"index", "low_index", "high_index"}
LENGTHS = {
    "batch", "inputs", "outputs", "all_outputs", "all_inputs", "rows", "parts", "each", "splits",
    "columns", "channels", "inner", "knots",
}  # fmt: skip
LABEL = re.compile(r"(\.L\w+):")
JUMP = re.compile(r"BRA\s.*`\((\.L\w+)\)")
INSTRUCTION = re.compile(r"/\*[0-9a-f]{4}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9]+)")


@dataclasses.dataclass(frozen=True)
class Build:
    """One kernel with its compile-time constants; ``needed``: operations per pair that the formula asks for.

    A pair is (row, output) of one input; of a spline, (number, knot). ``tile``: pairs of one lane in one turn.
    """

    name: str
    kernel: object
    constants: dict[str, object]
    needed: int
    tile: int = TILE_ROWS
    absent: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Listing:
    """What one kernel compiled to; ``per_pair`` counts machine instructions of its longest loop."""

    name: str
    registers: int
    spilled_bytes: int
    per_pair: float
    share: float


def builds() -> list[Build]:
    """Return the kernels of a training step and of certification, as the recipe runs them (with masks)."""
    from lablib.ops.linf_dist import triton_linf, triton_lp
    from lablib.ops.sortnet import triton_topk
    from lablib.ops.splines import triton_spline

    for module in (triton_lp, triton_linf, triton_topk, triton_spline):
        module.load()
    masked = {"KEPT_IN": True, "KEPT_OUT": True}
    power = {"THREE": False, "FAST": True, "NEAR": False, **masked}
    none = frozenset({"index", "low_index", "high_index"})
    found = []
    for p, steps in ((8, 3), (64, 6), (1024, 10)):
        forward = {"STEPS": steps, "PROBE": 1, "ROOM": 1.0, **power}
        ones = steps - 1 + steps.bit_length() - 1 + steps.bit_count() - 1  # multiplications for t^(p-1)
        found += [
            Build(f"l_p forward, p = {p}", triton_lp.lp_kernel, forward, steps + 2),
            Build(
                f"l_p backward (both), p = {p}",
                triton_lp.lp_backward_kernel,
                {"STEPS": steps, "WANT_X": True, **power},
                ones + 5,
            ),
        ]
    high = {"STEPS": -1, **power, "NEAR": True}
    return [
        *found,
        Build("l_p forward, near", triton_lp.lp_kernel, {"PROBE": 1, "ROOM": 1.0, **high}, 2),
        Build("l_p backward (both), near", triton_lp.lp_backward_kernel, {"WANT_X": True, **high}, 2),
        Build("l_inf forward", triton_linf.linf_kernel, masked, 2, absent=none),
        Build("l_inf forward with index", triton_linf.linf_kernel, masked, 4),
        Build(
            "l_inf bounds",
            triton_linf.linf_bounds_kernel,
            {"KEPT_IN": False, "KEPT_OUT": False},
            6,
            tile=16,
            absent=none,
        ),
        *(
            Build(
                f"spline backward, {name}",
                triton_spline.spline_backward_kernel,
                {"PLANES": name == "images", "WIDTH": 32, "UNROLL": 4},
                3,  # against each knot: distance, positive part, multiply-add
                tile=4 * 32,
            )
            for name in ("rows", "images")
        ),
        Build("top-10", triton_topk.topk_kernel, {"SIDE": 0, "TOP": 10}, 20, tile=4, absent=none),
    ]


def compile_listing(build: Build, capability: int = HOPPER) -> Listing:
    """Compile one kernel for this compute capability and read its machine code.

    Raises:
        ModuleNotFoundError: without Triton.
        OSError: without its assembler.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, hints = {}, {}, {}
    given = build.constants | {"TILE": build.tile, "LANES": LANES}
    for position, name in enumerate(build.kernel.arg_names):
        if name in given or name in build.absent:
            signature[name], constants[(position,)] = "constexpr", given.get(name)
        elif name in ("p", "floor", "inverse"):
            signature[name] = "fp32"
        elif name in LENGTHS and not (name == "parts" and "WANT_X" in given):
            signature[name] = "i32"
        else:
            signature[name] = "*i64" if name in INDICES else "*i32" if name in WINNERS else "*fp32"
            hints[(position,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=build.kernel, signature=signature, constexprs=constants, attrs=hints)
    options = {"num_warps": LANES // 32, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage, code = _disassemble(made.asm["cubin"], Path(triton.__file__).parent / "backends/nvidia/bin")
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))
    per_pair = max(sum(loop.values()) for loop in _loops(code)) * LANES / (build.tile * LANES)
    return Listing(build.name, registers, stack, per_pair, build.needed / per_pair)


def _disassemble(cubin: bytes, tools: Path) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        return tuple(
            subprocess.run([tools / tool, option, path], capture_output=True, text=True, check=True).stdout
            for tool, option in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))
        )


def _loops(code: str) -> list[Counter[str]]:
    """Return the instructions of every loop: from the label a backward jump goes to, to the jump.

    Forward jumps count as taken: they skip what is seldom needed.
    """
    lines, labels, found = code.splitlines(), {}, []
    for number, line in enumerate(lines):
        if label := LABEL.match(line.strip()):
            labels[label[1]] = number
        jump = JUMP.search(line)
        if jump and jump[1] in labels:
            found.append(_walk(lines[labels[jump[1]] : number + 1]))
    return found


def _walk(lines: list[str]) -> Counter[str]:
    passed, awaited = Counter(), None
    for line in lines:
        label = LABEL.match(line.strip())
        if awaited and not (label and label[1] == awaited):
            continue
        awaited = None
        if instruction := INSTRUCTION.search(line):
            passed[instruction[1]] += 1
        jump = JUMP.search(line)
        if jump and any(text.strip().startswith(f"{jump[1]}:") for text in lines):
            awaited = jump[1] if line is not lines[-1] else None
    return passed


def table() -> str:
    """Return the listings of all builds, one line each."""
    lines = ["kernel                          registers  spilled  instructions/pair  needed by the formula"]
    for build in builds():
        made = compile_listing(build)
        lines.append(
            f"{made.name:31} {made.registers:9d} {made.spilled_bytes:8d} {made.per_pair:18.1f}"
            f" {build.needed:6d} ({made.share:.0%})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
