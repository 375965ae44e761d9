"""From networks to certificates: norms and certified radii. ``bound_*`` is proven, ``estimate_*`` is not."""
