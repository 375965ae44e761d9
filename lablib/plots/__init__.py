"""Figures: arrays in, Figure out, no state between calls; :mod:`lablib.plots.theme` sets the look."""
