"""The standard network that attains the bound 1/(2d) for every non-constant symmetric Boolean function.

f(x) = s(mean(x)) with s piecewise linear, slopes +1 and -1. Let g take the value v_n at n ones. Put s(n/d) =
+1/(2d) where v_n = 1 and -1/(2d) where v_n = 0. Neighbouring values differ by 0 or 1/d, and n/d and (n+1)/d
are 1/d apart: where the label changes the segment has slope +-1; where it does not, s goes out for half the
way and comes back, away from zero. So s is 1-Lipschitz, f is a standard network of one affine layer and one
elementwise activation, and |f| = 1/(2d) at every vertex, with the right sign.
"""

from fractions import Fraction

from lablib.theory.boolean import BooleanFunction
from lablib.theory.network import Layer, affine


def zigzag(function: BooleanFunction) -> list[Layer]:
    """Return the two layers of s(mean(x)), in fractions: f > 0 iff g = 1, and |f| = 1/(2d) on the
    vertices.

    Raises:
        ValueError: if the function is not symmetric.
    """
    if not function.is_symmetric:
        raise ValueError("the zigzag of the mean needs a symmetric function: one that counts ones only")
    d = function.variables
    signs = [1 if function.table[(1 << ones) - 1] else -1 for ones in range(d + 1)]
    knots, values = [Fraction(0)], [Fraction(signs[0], 2 * d)]
    for ones in range(1, d + 1):
        if signs[ones] == signs[ones - 1]:
            knots.append(Fraction(2 * ones - 1, 2 * d))
            values.append(Fraction(signs[ones], d))
        knots.append(Fraction(ones, d))
        values.append(Fraction(signs[ones], 2 * d))
    zigzag_activation = {"op": "activation", "kind": "piecewise_linear", "knots": knots, "values": values}
    return [affine([[Fraction(1, d)] * d]), zigzag_activation]
