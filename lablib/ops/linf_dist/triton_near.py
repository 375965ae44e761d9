"""High powers in Triton kernels: only differences near the largest are raised to the power at all.

A ratio t <= 1 with t^p < 2^-CUT adds nothing that float32 keeps: the I - 1 terms left out change the sum by less than
I 2^-CUT, the distance by a p-th of that. At p >= 128 nearly all pairs are left out after one comparison, so a power
costs about what a maximum costs, whatever p is. The branch is in PTX: Triton itself has none inside a tile. Four rows
share one test.
"""

from __future__ import annotations  # tl is not there yet when the kernels are declared

from lablib.ops import gpu

tl = None  # triton.language, once loaded
SUM = GRADIENT = None  # the PTX of the two functions, once loaded
CUT = 30
PACK = 4

POWER = """
        rcp.approx.ftz.f32 ratio, {limit};
        mul.f32 size, size, {floor};
        mul.f32 ratio, ratio, size;
        lg2.approx.ftz.f32 ratio, ratio;
        mul.f32 ratio, ratio, {exponent};
        ex2.approx.ftz.f32 ratio, ratio;"""


def load() -> None:
    """Make the functions of this file ready.

    Raises:
        ModuleNotFoundError: without Triton.
    """
    if tl is None:
        gpu.load(globals(), ("add_near_power", "add_near_gradient"))
        globals()["SUM"] = tl.constexpr(_sum_code())
        globals()["GRADIENT"] = tl.constexpr(_gradient_code())


def floor_of(exponent: float) -> float:
    """Return the ratio below which its power is left out."""
    return 2.0 ** (-CUT / exponent)


def add_near_power(total, d, limit, p, floor, FAST: tl.constexpr):
    """total + (|d| floor / limit)^p where |d| >= limit = floor times the scale, else total; NaN counts as near."""
    if FAST:
        total = tl.inline_asm_elementwise(
            SUM,
            "=&f," * 4 + "f," * 19 + "f",
            [total, d, limit, p, floor],
            tl.float32,
            is_pure=True,
            pack=4,
        )
    else:
        size = tl.abs(d)
        ratio = tl.maximum(size * floor / limit, 1e-37, propagate_nan=tl.PropagateNan.ALL)
        total = total + tl.where(size < limit, 0.0, tl.exp2(p * tl.log2(ratio)))
    return total


def add_near_gradient(dx, d, limit, slope, exponent, floor, FAST: tl.constexpr):
    """(dx + c, c) with c = slope sign(d) (|d| floor / limit)^exponent where |d| >= limit, else 0."""
    if FAST:
        dx, c = tl.inline_asm_elementwise(
            GRADIENT,
            "=&f," * 8 + "f," * 23 + "f",
            [dx, d, limit, slope, exponent, floor],
            (tl.float32, tl.float32),
            is_pure=True,
            pack=4,
        )
    else:
        size = tl.abs(d)
        ratio = tl.maximum(size * floor / limit, 1e-37, propagate_nan=tl.PropagateNan.ALL)
        power = tl.exp2(exponent * tl.log2(ratio))
        c = tl.where(size < limit, 0.0, slope * tl.where(d < 0, -power, power))
        dx = dx + c
    return dx, c


def _sum_code() -> str:
    """Operands of row j: total in and out, d, limit, p, floor, four of each."""
    start = "".join(f"\n        mov.f32 ${j}, ${PACK + j};" for j in range(PACK))
    body = ""
    for j in range(PACK):
        power = POWER.format(limit=f"${3 * PACK + j}", floor=f"${5 * PACK + j}", exponent=f"${4 * PACK + j}")
        body += _row(j, 2 * PACK + j, 3 * PACK + j, f"{power}\n        @near add.f32 ${j}, ${j}, ratio;")
    return _branch(start, 2 * PACK, 3 * PACK, body)


def _gradient_code() -> str:
    """Operands of row j: dx out, c out, dx in, d, limit, slope, exponent, floor, four of each."""
    start = "".join(
        f"\n        mov.f32 ${j}, ${2 * PACK + j};\n        mov.f32 ${PACK + j}, 0f00000000;"
        for j in range(PACK)
    )
    body = ""
    for j in range(PACK):
        power = POWER.format(limit=f"${4 * PACK + j}", floor=f"${7 * PACK + j}", exponent=f"${6 * PACK + j}")
        power += f"""
        copysign.f32 ratio, ${3 * PACK + j}, ratio;
        mul.f32 ratio, ratio, ${5 * PACK + j};
        @near mov.f32 ${PACK + j}, ratio;
        @near add.f32 ${j}, ${j}, ratio;"""
        body += _row(j, 3 * PACK + j, 4 * PACK + j, power)
    return _branch(start, 3 * PACK, 4 * PACK, body)


def _row(row: int, d: int, limit: int, power: str) -> str:
    return f"\n        abs.f32 size, ${d};\n        setp.geu.f32 near, size, ${limit};{power}"


def _branch(start: str, d: int, limit: int, body: str) -> str:
    """Skip ``body`` unless some row's |d| reaches its limit (geu: greater, equal or NaN)."""
    tests = ""
    for j in range(PACK):
        both = "geu.f32 any, size" if j == 0 else "geu.or.f32 any, size"
        last = "" if j == 0 else ", any"
        tests += f"\n        abs.f32 size, ${d + j};\n        setp.{both}, ${limit + j}{last};"
    return f"""
    {{
        .reg .pred any, near;
        .reg .f32 size, ratio;{start}{tests}
        @!any bra skipped;{body}
    skipped:
    }}
    """
