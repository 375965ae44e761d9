"""Explicit networks, as plain data with fractions and integers: each is exact and tested in exact arithmetic.

``zigzag``: the standard network that attains 1/(2d) for symmetric Boolean functions; ``two_layer``: the best
two-layer standard network for any Boolean function, by a linear program; ``sorting_networks``: every order
statistic by MaxMin or GroupSort; ``distance_networks``: two l_inf-distance layers for every Boolean function and
order statistic; ``sortnet_weights``: SortNet layers that are affine, GroupSort or l_inf-distance layers.
"""
