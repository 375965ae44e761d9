"""Impossibility certificates: how large a certified radius can be on given data, and the proof of it.

Read in this order: :mod:`.exact` (data as integers), :mod:`.certificate` (what is claimed), :mod:`.check` (why
the claim is true, in exact arithmetic), :mod:`.oracle` (closest pairs), :mod:`.solve` (how the proof is found).

>>> import numpy as np
>>> from lablib.theory.impossibility import check, solve
>>> zeros, ones = np.array([[0, 0], [0, 1], [1, 0]]), np.array([[1, 1]])        # AND of two variables
>>> certificate = solve([zeros, ones], names=["0", "1"])
>>> check(certificate, [zeros, ones]).upper                                    # 1/(2d), the optimum is 1/2
Fraction(1, 4)
"""

from lablib.theory.impossibility.certificate import Certificate, DamagedCertificateError
from lablib.theory.impossibility.check import CertificateError, Checked, check
from lablib.theory.impossibility.solve import solve

__all__ = ["Certificate", "CertificateError", "Checked", "DamagedCertificateError", "check", "solve"]
