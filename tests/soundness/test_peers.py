"""Published packages under the same battery: the breaks that are known, and the layers that stand."""

import warnings

import pytest

pytest.importorskip("deel.torchlip", exc_type=ImportError)
pytest.importorskip("orthogonium", exc_type=ImportError)
pytest.importorskip("monotonicnetworks", exc_type=ImportError)

from lablib.experiments import peer_battery as peers

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

BREAKS = {
    "deel-torchlip": {
        "SpectralLinear eps_bjorck=None",
        "SpectralConv2d reflect",
        "HouseHolder k_coef_lip=0.5",
        "ScaledAvgPool2d ceil_mode",
        "ScaledL2NormPool2d ceil_mode",
        "InvertibleDownSampling k_coef_lip=0.5",
        "Sequential k_coef_lip=0.25",
        "lconv_norm with input_shape",
    },
    "orthogonium": {"AdaptiveOrthoConv2d replicate", "AdaptiveSOCConv2d"},
    "monotonicnetworks": {"LipschitzLinear one lipschitz_const=0", "3 layers, default kind", "RMSNorm"},
}
STAND = {
    "deel-torchlip": {"SpectralLinear", "SpectralConv2d", "GroupSort2", "HouseHolder"},
    "orthogonium": {"OrthoLinear", "AOLConv2D", "AdaptiveOrthoConv2d 2 x 2 stride 2"},
    "monotonicnetworks": {"3 layers, one", "3 layers, one-inf then inf", "GroupSort 2 groups"},
}


@pytest.mark.parametrize("package", BREAKS)
def test_verdicts(package):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = {case.name: case for case in peers.PACKAGES[package]()}
    wanted = BREAKS[package] | STAND[package]
    assert wanted <= set(cases)
    rows = peers.package_rows(package, [cases[name] for name in sorted(wanted)], seeds=1)
    verdicts = {row["layer"]: row["verdict"] for row in rows}
    assert {name for name, verdict in verdicts.items() if verdict == "breaks"} == BREAKS[package]
    assert all(row["why"] for row in rows if row["verdict"] == "breaks")


def test_monotone_networks():
    default, right, loaded, single = peers.monotone_rows()
    assert default["measured"] < -2.5
    assert right["verdict"] == "holds"
    assert loaded["measured"] < -1.0
    assert -1e-5 < single["measured"] < 0


def test_behaviours():
    assert not any(row["ok"] for row in peers.behaviour_rows())


def test_recipe_draws():
    rows = [
        {"package": "lablib", "layer": "a", "claim": 1.0, "measured": 1.0, "verdict": "holds"},
        {"package": "other", "layer": "b", "claim": 0.0, "measured": 1.0, "verdict": "breaks"},
    ]
    record = {"metrics": {"rows": rows, "versions": {"lablib": "0", "other": "1"}}}
    figure = peers.RECIPE.draw(record)["peer_battery"]
    assert [axis.get_title(loc="left") for part in figure.subfigs for axis in part.axes] == [
        "lablib 0",
        "other 1",
    ]
