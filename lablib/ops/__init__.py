"""Pure functions on tensors: norms, projections, orthonormalisation, sorting, distances. No state.

Shape letters used throughout: B batch, I inputs, O outputs, C channels, H and W image height and width, G
group size, k kernel size, s stride.
"""
