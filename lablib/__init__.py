"""lablib: Lipschitz-constrained networks, their limits, and certificates one can check.

Import the part you need (``lablib.layers``, ``lablib.theory``, ...); importing ``lablib`` itself loads nothing.
"""

__version__ = "0.1.0"
