"""Looks of activations: one for each, told apart by any of colour, dash and marker."""

import pytest

from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.plots.theme import LOOKS, activation_look


def test_every_activation_has_its_own_look_by_key_and_by_label():
    for name, label in ACTIVATIONS.items():
        assert activation_look(name) == activation_look(label) == LOOKS[name]
    constrained = [LOOKS[name] for name in (*ACTIVATIONS, "leaky", "unconstrained")]
    for part in zip(*constrained, strict=True):
        assert len(set(part)) == len(constrained)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no look for 'tanh'; choose from relu"):
        activation_look("tanh")
