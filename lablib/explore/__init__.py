"""The notebooks' widgets: sliders over :mod:`lablib.plots`, each with a static default beside it."""
