"""The toy generator of displaced vertices: closed forms against matrices, chi^2 that are chi^2, truth, and seeds."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from lablib.experiments import trigger_events as events
from lablib.experiments.trigger_events import KINDS, Detector, generate, generate_mixture

NOMINAL = Detector()


def lines(count, seed=0, apart=0.0):
    """Pairs of lines through two points near the origin, displaced by their errors, and a measured primary."""
    rng = np.random.default_rng(seed)
    errors = NOMINAL.track_error(rng.uniform(0.3, 5.0, (2, count)))
    points = np.repeat(rng.normal(0.0, 1.0, (1, count, 3)) * apart, 2, axis=0)
    points[..., :2] += errors[..., None] * rng.standard_normal((2, count, 2))
    primary = rng.standard_normal((count, 3)) * (NOMINAL.pv_across, NOMINAL.pv_across, NOMINAL.pv_along)
    return points, rng.normal(0.0, 0.1, (2, count, 2)), errors, primary


def slow_vertex(points, slopes, errors, primary):
    """Weighted least squares with matrices, for one candidate: chi^2 of the vertex and of the flight distance."""
    rows, values, weights = [], [], []
    for point, slope, error in zip(points, slopes, errors):
        for axis in range(2):
            row = np.zeros(3)
            row[axis], row[2] = 1.0, -slope[axis]
            rows.append(row)
            values.append(point[axis] - slope[axis] * point[2])
            weights.append(error**-2.0)
    rows, values, weights = np.array(rows), np.array(values), np.diag(weights)
    information = rows.T @ weights @ rows
    vertex = np.linalg.solve(information, rows.T @ weights @ values)
    rest = values - rows @ vertex
    known = np.diag([NOMINAL.pv_across**2, NOMINAL.pv_across**2, NOMINAL.pv_along**2])
    flight = vertex - primary
    return rest @ weights @ rest, flight @ np.linalg.solve(np.linalg.inv(information) + known, flight)


def slow_impact(point, slope, error, primary):
    gap = point[:2] + slope * (primary[2] - point[2]) - primary[:2]
    covariance = (error**2 + NOMINAL.pv_across**2) * np.eye(2) + NOMINAL.pv_along**2 * np.outer(slope, slope)
    return gap @ np.linalg.solve(covariance, gap)


@pytest.mark.parametrize("apart", [0.0, 0.3, 20.0])
def test_closed_forms_are_those_of_the_matrices(apart):
    points, slopes, errors, primary = lines(40, seed=3, apart=apart)
    vertex, flight = events.fit_vertex(points, slopes, errors, primary, NOMINAL)
    impact = events.impact_chi2(points, slopes, errors, primary, NOMINAL)
    for row in range(40):
        wanted = slow_vertex(points[:, row], slopes[:, row], errors[:, row], primary[row])
        np.testing.assert_allclose((vertex[row], flight[row]), wanted, rtol=1e-6, atol=1e-8)
        for track in range(2):
            slow = slow_impact(points[track, row], slopes[track, row], errors[track, row], primary[row])
            np.testing.assert_allclose(impact[track, row], slow, rtol=1e-9)


def test_measured_tracks_from_one_point_have_the_chi2_that_they_should():
    drawn = lines(20_000)
    vertex, flight = events.fit_vertex(*drawn, NOMINAL)
    impact = events.impact_chi2(*drawn, NOMINAL)[0]
    for values, freedom in ((vertex, 1), (flight, 3), (impact, 2)):
        assert stats.kstest(values, stats.chi2(freedom).cdf).pvalue > 1e-3


def test_parallel_tracks_have_a_vertex_at_the_primary():
    points, slopes, errors, primary = lines(5)
    slopes[1] = slopes[0]
    vertex, flight = events.fit_vertex(points, slopes, errors, primary, NOMINAL)
    assert np.isfinite(vertex).all()
    assert np.isfinite(flight).all()


def test_decays_conserve_the_mass_of_the_hadron():
    rng = np.random.default_rng(0)
    first, second, origins, time = events._decays("strange", rng, None)
    total = first + second
    mass = np.sqrt(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1))
    np.testing.assert_allclose(mass, events.HADRONS["strange"].mass, rtol=1e-5)
    flown = events.LIGHT * time / events.HADRONS["strange"].mass * np.linalg.norm(total[:, 1:], axis=1)
    np.testing.assert_allclose(np.linalg.norm(origins[0], axis=1), flown, rtol=1e-9)
    for kind in ("beauty", "charm"):
        first, second, origins, _ = events._decays(kind, rng, None)
        pair = first + second
        squared = pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(1)
        assert (squared > -1e-6).all()
        assert (squared <= events.HADRONS[kind].mass ** 2 * (1 + 1e-6)).all()
        shared = (origins[0] == origins[1]).all(1).mean()
        assert shared == pytest.approx(0.5, abs=0.02) if kind == "beauty" else shared == 1.0


def test_truth_is_kept():
    beauty = generate("beauty", 40_000, seed=0)
    assert len(beauty) == 40_000
    assert beauty.signal.all()
    assert beauty.lifetime.mean() == pytest.approx(events.HADRONS["beauty"].lifetime, rel=0.03)
    assert stats.kstest(beauty.lifetime, stats.expon(scale=beauty.lifetime.mean()).cdf).statistic < 0.01
    assert stats.spearmanr(beauty.lifetime, beauty.features[:, 0]).statistic > 0.5
    prompt = generate("prompt", 1000, seed=0)
    assert not prompt.lifetime.any()
    assert not prompt.flight.any()
    flat = generate("beauty", 5000, seed=0, lifetimes=(0.01, 1.0))
    assert flat.lifetime.min() >= 0.01
    assert flat.lifetime.max() <= 1.0
    assert np.median(np.log10(flat.lifetime)) == pytest.approx(-1.0, abs=0.1)


def test_preselection_holds():
    for kind in KINDS:
        features = generate(kind, 2000, seed=1).features
        assert np.isfinite(features).all()
        assert (features[:, 1] > events.LEAST_PAIR_PT).all()
        assert (features[:, 2] < events.LARGEST_VERTEX_CHI2).all()


def test_kinds_are_ordered_by_displacement_and_hardness():
    medians = {kind: np.median(generate(kind, 4000, seed=2).features, axis=0) for kind in KINDS}
    for feature in (0, 3):
        ordered = [medians[kind][feature] for kind in ("prompt", "charm", "beauty", "strange")]
        assert ordered == sorted(ordered)
    assert max(medians, key=lambda kind: medians[kind][1]) == "beauty"


def test_seeds_make_the_same_and_other_candidates():
    made = generate("charm", 3000, seed=5)
    for field in dataclasses.fields(made):
        np.testing.assert_array_equal(
            getattr(made, field.name), getattr(generate("charm", 3000, seed=5), field.name)
        )
    assert not np.isin(made.features[:, 0], generate("charm", 3000, seed=6).features[:, 0]).any()
    mixed = generate_mixture(dict.fromkeys(KINDS, 500), seed=5)
    for kind in KINDS:
        alone = generate(kind, 500, seed=5).features[:, 0]
        assert not np.isin(mixed.features[:, 0], alone).any()
    assert np.bincount(mixed.kind).tolist() == [500] * len(KINDS)
    assert len(np.unique(mixed.kind[:50])) > 1  # shuffled
    assert sum(events.background_counts(1001).values()) == 1001
    assert events.background_counts(100, strange=0.0) == {"prompt": 88, "charm": 12}


def test_a_detector_that_is_worse_than_it_knows_inflates_chi2():
    def median(**changes):
        return np.median(generate("prompt", 5000, seed=0, detector=Detector(**changes)).features, axis=0)

    nominal, unknown, known = median(), median(unknown=2.0), median(resolution=2.0)
    assert unknown[0] > nominal[0] + 0.7
    assert unknown[3] > nominal[3] + 0.7
    np.testing.assert_allclose(known[[0, 2]], nominal[[0, 2]], atol=0.1)
    assert np.median(generate("beauty", 5000, seed=0, detector=Detector(resolution=3.0)).features[:, 0]) < 5.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate("kaon", 5, seed=0), "no kind"),
        (lambda: generate("beauty", 0, seed=0), "at least one"),
        (lambda: generate("beauty", 2.5, seed=0), "integer"),
        (lambda: generate("beauty", 5, seed=0, lifetimes=(2.0, 1.0)), "low < high"),
        (lambda: generate("prompt", 5, seed=0, lifetimes=(1.0, 2.0)), "prompt tracks have none"),
        (lambda: generate_mixture({}, seed=0), "at least one kind"),
        (lambda: events.background_counts(10, strange=0.9), "does not fit"),
        (lambda: Detector(bad_share=1.5), "between 0 and 1"),
        (lambda: Detector(unknown=-1.0), "not negative"),
        (lambda: Detector(pv_along=float("nan")), "finite"),
        (lambda: Detector(pv_across=0.0), "positive"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
