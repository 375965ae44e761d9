"""Curves between brackets, and the refusal of certificates that an attack refutes."""

import numpy as np
import pytest

from lablib.certify import bracket
from lablib.certify.curves import check_uncontradicted


def test_shares():
    made = bracket(
        [0.0, 0.1, 0.3],
        np.array([True, True, True, False]),
        np.array([0.2, 0.4, np.inf, 0.0]),
        {"margins": np.array([0.05, 0.2, 0.3, 0.0]), "intervals": np.array([0.1, 0.2, 0.35, 0.0])},
    )
    assert made.samples == 4
    assert made.clean == 0.75
    assert made.attacked.tolist() == [0.75, 0.75, 0.5]
    assert made.certified["margins"].tolist() == [0.75, 0.5, 0.0]
    assert made.best.tolist() == [0.75, 0.5, 0.25]
    assert (made.best <= made.attacked).all()
    assert (made.attacked <= made.clean).all()


def test_contradictions_name_the_sample():
    with pytest.raises(ValueError, match="sample 1"):
        bracket([0.1], np.array([True, True]), np.array([0.5, 0.2]), {"margins": np.array([0.1, 0.2])})
    with pytest.raises(ValueError, match="intervals is refuted: sample 0"):
        bracket([0.1], np.array([False]), np.array([np.inf]), {"intervals": np.array([0.1])})
    check_uncontradicted([0.0, 0.1], [0.0, np.nextafter(0.1, 1)])


def test_refusals():
    right = np.array([True])
    for call in (
        lambda: bracket([0.1], right, np.array([np.nan]), {"m": np.zeros(1)}),
        lambda: bracket([0.1], right, np.array([0.1]), {}),
        lambda: bracket([0.1], right.astype(int), np.array([0.1]), {"m": np.zeros(1)}),
        lambda: bracket([0.1], right, np.zeros(2), {"m": np.zeros(1)}),
        lambda: bracket([-0.1], right, np.array([0.1]), {"m": np.zeros(1)}),
        lambda: check_uncontradicted([0.1], [np.nan]),
        lambda: check_uncontradicted([0.1], [0.2, 0.3]),
    ):
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            call()
