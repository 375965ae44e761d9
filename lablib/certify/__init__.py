"""From networks to certificates: operator norms and certified radii. ``bound_*`` is proven, ``estimate_*`` is
not.
"""
