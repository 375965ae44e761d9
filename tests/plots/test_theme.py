"""Looks of activations and methods: one for each, told apart by any of colour, dash and marker."""

import pytest

from lablib.experiments import monotone_lines, monotone_tabular, trigger_models
from lablib.experiments.activation_zoo import ACTIVATIONS
from lablib.plots.theme import LOOKS, activation_look, method_look


def test_every_activation_has_its_own_look_by_key_and_by_label():
    for name, label in ACTIVATIONS.items():
        assert activation_look(name) == activation_look(label) == LOOKS[name]
    constrained = [LOOKS[name] for name in (*ACTIVATIONS, "leaky", "unconstrained")]
    for part in zip(*constrained, strict=True):
        assert len(set(part)) == len(constrained)


def test_a_method_looks_alike_in_every_figure_and_unlike_the_others_of_a_figure():
    usual = trigger_models.MODELS["monotone"].removesuffix("2")
    scanned = [trigger_models.MODELS["unconstrained"], *(f"{usual}{value}" for value in (1, 2, 4, 8))]
    figures = [
        monotone_tabular.LABELS.values(),
        monotone_lines.LOG_MODELS.values(),
        monotone_lines.FORCED_MODELS.values(),
        [*trigger_models.MODELS.values(), f"{usual}8"],
        scanned,
    ]
    for labels in figures:
        for part in zip(*map(method_look, labels), strict=True):
            assert len(set(part)) == len(list(labels))
    for key, label in (("monotone", "Monotone network (ours)"), ("lightgbm", "Monotone trees (LightGBM)")):
        assert method_look(trigger_models.MODELS[key]) == method_look(label)
    assert method_look("monotone,\nresidual λ") == method_look("Monotone network, residual λ = 2")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no look for 'free'; a label holds one of unconstrained"):
        method_look("free")
    with pytest.raises(ValueError, match="no look for 'tanh'; choose from relu"):
        activation_look("tanh")
