"""The checker: accepts what is true, refuses every tampering, uses no solver and no floats; files come back whole."""

import ast
import dataclasses
import inspect
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lablib.theory.impossibility import Certificate, CertificateError, DamagedCertificateError, check, solve
from lablib.theory.impossibility.exact import as_integers, coarse, digest


@pytest.fixture(scope="module")
def classes():
    random = np.random.default_rng(0)
    return [(random.random((40, 4, 5)) ** (1 + y) * 255).astype(np.uint8) for y in range(2)]


@pytest.fixture(scope="module")
def certificate(classes):
    return solve(classes, names=["left", "right"], depth=2, group=2)


@pytest.fixture(scope="module")
def three():
    random = np.random.default_rng(1)
    classes = [random.normal(size=(12, 6)) + y for y in range(3)]
    return classes, solve(classes)


def sealed(certificate, classes, **changes):
    """A forger who also computes the digest anew."""
    changed = dataclasses.replace(certificate, **changes)
    return dataclasses.replace(changed, digest=digest(classes, changed.statement))


def brute_upper(certificate, classes, scale):
    """The dual bound again, written differently: fractions throughout, one logit after the other."""
    total = Fraction(0)
    for y in range(len(classes)):
        v = [Fraction(0)] * certificate.dimension
        for (p, a, q, b), weight in zip(certificate.pairs, certificate.weights):
            if y in (p, q):
                for j, (s, t) in enumerate(zip(classes[p][a].ravel(), classes[q][b].ravel())):
                    step = abs(Fraction(s.item()) - Fraction(t.item())) / scale
                    v[j] += Fraction(weight, certificate.weight_sum) * step / 4
        total += sum(sorted(v)[-certificate.budget :])
    return total


def test_valid_certificates_are_accepted(certificate, classes, three):
    checked = check(certificate, classes)
    assert checked.exhaustive
    assert checked.pairs == 1600
    assert (checked.lower, checked.upper) == (certificate.lower, certificate.upper)
    assert certificate.bound == brute_upper(certificate, classes, 255)
    assert not check(certificate, classes, exhaustive=False).exhaustive
    assert check(three[1], three[0]).pairs == 3 * 144
    assert three[1].bound == brute_upper(three[1], three[0], 1)


def test_a_weaker_claim_is_true_and_accepted(certificate, classes):
    weaker = dataclasses.replace(certificate, bound=certificate.bound * 2, value=certificate.value / 2)
    check(weaker, classes)


def replaced(sequence, position, value):
    return (*sequence[:position], value, *sequence[position + 1 :])


TAMPERINGS = {
    "bound below": lambda c: {"bound": c.bound - Fraction(1, 10**15)},
    "bound zero": lambda c: {"bound": Fraction(0)},
    "bound negative": lambda c: {"bound": Fraction(-1)},
    "bound float": lambda c: {"bound": float(c.bound)},
    "bound NaN": lambda c: {"bound": float("nan")},
    "value above": lambda c: {"value": c.value + Fraction(1, 10**12)},
    "value NaN": lambda c: {"value": float("nan")},
    "separation below": lambda c: {"separation": c.separation - Fraction(1, 255)},
    "separation above": lambda c: {"separation": c.separation + Fraction(1, 255)},
    "separation pair": lambda c: {"separation_pair": c.pairs[0]},
    "separation pair short": lambda c: {"separation_pair": c.pairs[0][:3]},
    "weight up": lambda c: {"weights": replaced(c.weights, 0, c.weights[0] + 1)},
    "weight zero": lambda c: {
        "weights": replaced(c.weights, 0, 0),
        "weight_sum": c.weight_sum - c.weights[0],
    },
    "weight negative": lambda c: {
        "weights": replaced(replaced(c.weights, 0, -1), 1, c.weights[0] + c.weights[1] + 1)
    },
    "weight float": lambda c: {"weights": replaced(c.weights, 0, float(c.weights[0]))},
    "weight bool": lambda c: {"weights": replaced(c.weights, 0, True)},
    "weights missing": lambda c: {"weights": c.weights[1:]},
    "weight sum": lambda c: {"weight_sum": c.weight_sum + 1},
    "weight sum halved": lambda c: {"weight_sum": c.weight_sum // 2},
    "no pairs": lambda c: {"pairs": (), "weights": ()},
    "index out of range": lambda c: {"pairs": replaced(c.pairs, 0, (0, 40, 1, 0))},
    "index negative": lambda c: {"pairs": replaced(c.pairs, 0, (0, -1, 1, 0))},
    "index float": lambda c: {"pairs": replaced(c.pairs, 0, (0, 1.0, 1, 0))},
    "class out of range": lambda c: {"pairs": replaced(c.pairs, 0, (0, 0, 2, 0))},
    "pair of one class": lambda c: {"pairs": replaced(c.pairs, 0, (0, 0, 0, 1))},
    "pair turned round": lambda c: {"pairs": replaced(c.pairs, 0, (1, 0, 0, 0))},
    "pair twice": lambda c: {"pairs": replaced(c.pairs, 0, c.pairs[1])},
    "pair is a list": lambda c: {"pairs": replaced(c.pairs, 0, list(c.pairs[0]))},
    "lambda sum": lambda c: {"budgets": (tuple((j, w + 9) for j, w in c.budgets[0]),)},
    "lambda above one": lambda c: {"budgets": (replaced(c.budgets[0], 0, (0, c.denominator + 1)),)},
    "lambda negative": lambda c: {"budgets": (replaced(c.budgets[0], 0, (c.budgets[0][0][0], -1)),)},
    "lambda NaN": lambda c: {"budgets": (replaced(c.budgets[0], 0, (0, float("nan"))),)},
    "lambda coordinate": lambda c: {"budgets": (replaced(c.budgets[0], 0, (20, 1)),)},
    "lambda coordinate twice": lambda c: {"budgets": (replaced(c.budgets[0], 0, c.budgets[0][1]),)},
    "lambda missing": lambda c: {"budgets": ()},
    "lambda empty": lambda c: {"budgets": ((),)},
    "lambda dropped": lambda c: {"budgets": (c.budgets[0][1:],)},
    "lambda a row too many": lambda c: {"budgets": c.budgets * 2},
    "denominator halved": lambda c: {"denominator": c.denominator // 2},
    "denominator larger": lambda c: {"denominator": c.denominator * 2},
    "denominator enormous": lambda c: {
        "denominator": c.denominator << 60,
        "budgets": (tuple((j, w << 60) for j, w in c.budgets[0]),),
    },
    "budget": lambda c: {"budget": 1},
    "depth smaller": lambda c: {"depth": 1, "budget": 1},
    "depth larger": lambda c: {"depth": 3, "budget": 4},
    "depth enormous": lambda c: {"depth": 10**12},
    "depth zero": lambda c: {"depth": 0},
    "depth bool": lambda c: {"depth": True, "budget": 1},
    "group larger": lambda c: {"group": 3, "budget": 3},
    "group without budget": lambda c: {"group": 3},
    "norm": lambda c: {"norm": "l2"},
    "scale": lambda c: {"scale": 256},
    "dimension": lambda c: {"dimension": 21},
    "sizes": lambda c: {"sizes": (41, 40)},
    "names equal": lambda c: {"names": ("left", "left")},
    "names missing": lambda c: {"names": ("left",)},
    "names number": lambda c: {"names": ("left", 1)},
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampering_is_refused(certificate, classes, name):
    changed = dataclasses.replace(certificate, **TAMPERINGS[name](certificate))
    with pytest.raises(CertificateError, match="refused"):
        check(changed, classes)


@pytest.mark.parametrize("name", [name for name in TAMPERINGS if "names" not in name])
def test_tampering_is_refused_when_the_digest_is_forged_as_well(certificate, classes, name):
    with pytest.raises(CertificateError, match="refused"):
        check(sealed(certificate, classes, **TAMPERINGS[name](certificate)), classes)


CHANGES = [{"names": ("right", "left")}, {"names": ("a", "b")}, {"digest": "0" * 64}, {"digest": ""}]


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_covers_the_statement(certificate, classes, change):
    with pytest.raises(CertificateError, match="digest"):
        check(dataclasses.replace(certificate, **change), classes)


def test_the_digest_covers_the_data(certificate, classes):
    one_bit = [points.copy() for points in classes]
    one_bit[1][39, 3, 4] ^= 1
    flat = [points.reshape(40, 20) for points in classes]
    for others in (one_bit, flat, classes[::-1], [points.astype(np.int64) for points in classes]):
        with pytest.raises(CertificateError, match="digest"):
            check(certificate, others)
    with pytest.raises(CertificateError, match="points per class"):
        check(certificate, [classes[0][:39], classes[1]])
    with pytest.raises(CertificateError, match="points per class"):
        check(certificate, [*classes, classes[0]])


def test_a_closer_pair_is_found_wherever_it_hides(classes):
    """The exhaustive part finds one planted pair in a forged certificate, whatever its place."""
    for place in ((0, 0), (39, 39), (17, 31)):
        planted = [points.copy() for points in classes]
        planted[1][place[1]] = planted[0][place[0]]
        planted[1][place[1], 0, 0] ^= 1
        forged = sealed(solve(classes), planted)
        with pytest.raises(CertificateError):
            check(forged, planted)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_number_in_the_file_is_refused_or_harmless(certificate, classes, data):
    """Change one number anywhere in the JSON: it must be refused, or still claim no more than what is true."""
    fields = json.loads(certificate.to_json())
    places = []

    def walk(node, path):
        if isinstance(node, list | dict):
            for key, item in node.items() if isinstance(node, dict) else enumerate(node):
                walk(item, [*path, key])
        elif path[0] not in ("run", "lower", "upper", "half_separation"):
            places.append(path)

    walk(fields, [])
    path = data.draw(st.sampled_from(places))
    node = fields
    for key in path[:-1]:
        node = node[key]
    old = node[path[-1]]
    change = data.draw(st.sampled_from([-1, 1, 7]) if isinstance(old, int) else st.just("8"))
    node[path[-1]] = old + change if isinstance(old, int) else change
    try:
        changed = Certificate.from_json(json.dumps(fields))
        checked = check(changed, classes)
    except (CertificateError, ValueError):
        return
    assert checked.upper >= certificate.lower
    assert checked.lower <= certificate.upper


def test_wide_floats_are_settled_in_whole_numbers():
    """A difference in the last of 60 bits decides, where 64-bit sums would overflow or round."""
    a, b = np.array([[0.1, 0.2, 0.3]]), np.array([[0.4, 0.8, np.nextafter(0.5, 1)]])
    certificate = solve([a, b])
    check(certificate, [a, b])
    exact = max(abs(Fraction(s) - Fraction(t)) for s, t in zip(a[0].tolist(), b[0].tolist()))
    assert certificate.separation == exact
    step = Fraction(1, 2**56)
    with pytest.raises(CertificateError, match="separation"):
        check(dataclasses.replace(certificate, separation=exact + step), [a, b])


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_floats_become_integers_exactly(values):
    points = np.array(values).reshape(2, 2)
    (first, second), scale = as_integers([points[:1], points[1:]])
    back = [Fraction(int(number), scale) for row in (*first, *second) for number in row]
    assert back == [Fraction(value) for value in values]
    (q,), shift = coarse([np.concatenate([first, second])], 20)
    assert q.min() >= 0
    assert q.max() < 1 << 20
    low = min(int(number) for row in (*first, *second) for number in row)
    for number, top in zip((n for row in (*first, *second) for n in row), q.ravel().tolist()):
        assert 0 <= int(number) - low - (top << shift) < 1 << shift


def test_integers_at_the_ends_of_their_range():
    ends = [np.iinfo(np.int64).min, np.iinfo(np.int64).max]
    (first, second), scale = as_integers([np.array([[ends[0]]]), np.array([[ends[1]]])])
    assert (int(first[0, 0]), int(second[0, 0]), scale) == (*ends, 1)
    (first, second), _ = as_integers(
        [np.array([[0]], dtype=np.uint64), np.array([[2**64 - 1]], dtype=np.uint64)]
    )
    assert int(second[0, 0]) - int(first[0, 0]) == 2**64 - 1
    assert as_integers([np.array([[True]]), np.array([[False]])])[0][0].tolist() == [[1]]


def test_save_and_load(tmp_path, certificate, classes):
    path = certificate.save(tmp_path / "deep" / "certificate.json")
    loaded = Certificate.load(path)
    assert loaded == certificate
    assert loaded.run == certificate.run
    check(loaded, classes)
    certificate.save(path)  # over itself, without leftovers
    assert [entry.name for entry in path.parent.iterdir()] == ["certificate.json"]
    text = json.loads(path.read_text())
    assert (
        Fraction(str(text["upper"])) >= certificate.upper > Fraction(str(text["upper"])) - Fraction(1, 10**9)
    )
    assert Fraction(str(text["lower"])) <= certificate.lower
    assert int(text["bound"][0]) == certificate.bound.numerator


def test_a_damaged_file_is_refused_with_one_sentence(tmp_path, certificate):
    text = certificate.to_json()
    path = tmp_path / "certificate.json"
    for cut in range(0, len(text) - 2, 97):
        path.write_text(text[:cut])
        with pytest.raises(DamagedCertificateError, match=r"certificate\.json"):
            Certificate.load(path)
    first = str(certificate.weights[0])
    for damaged in (
        "[]",
        "null",
        "{}",
        "\x00",
        "[" * 5000,
        text.replace("certificate 1", "certificate 9"),
        text.replace(first, "NaN", 1),
        text.replace('"upper": 0.', '"upper": 1.'),
        text.replace('"upper": 0.', '"upper": -0.'),
        text.replace('"bound"', '"bond"'),
        text.replace(f'["{certificate.bound.numerator}",', '["nan",'),
        text.replace(f'"{certificate.bound.denominator}"]', '"0"]', 1),
    ):
        path.write_text(damaged)
        with pytest.raises(DamagedCertificateError):
            Certificate.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DamagedCertificateError):
        Certificate.load(path)
    with pytest.raises(FileNotFoundError):
        Certificate.load(tmp_path / "absent.json")


def test_saving_fails_whole(tmp_path, certificate):
    (tmp_path / "certificate.json").mkdir()
    with pytest.raises(OSError, match=r"certificate\.json"):
        certificate.save(tmp_path / "certificate.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["certificate.json"]


def test_the_checker_has_no_solver_and_no_floats():
    module = sys.modules[check.__module__]
    tree = ast.parse(inspect.getsource(module))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not {
        name for name in imported if "scipy" in name or name.endswith(("solve", "oracle")) or "numba" in name
    }
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in names if "float" in name}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Div)]
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, float)]


def test_numba_and_scipy_are_not_needed_to_check(certificate, classes, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setitem(sys.modules, "scipy", None)
    check(certificate, classes)


def test_a_forged_scale_is_refused():
    random = np.random.default_rng(3)
    pixels = [random.integers(0, 256, size=(8, 6), dtype=np.uint8) for _ in range(2)]
    small = solve(pixels, scale=25500)
    check(small, pixels, scale=25500)
    with pytest.raises(CertificateError, match="scale"):
        check(small, pixels)
    with pytest.raises(CertificateError, match="scale"):
        check(small, pixels, scale=255)
    floats = [part / 256 for part in pixels]
    halved = sealed(solve(floats), floats, scale=solve(floats).scale * 2)
    with pytest.raises(CertificateError, match="scale"):
        check(halved, floats)


def test_look_alikes_are_refused(classes, certificate):
    class Generous(Fraction):
        def __ge__(self, other):
            return True

        __le__ = __ge__

    class Low(type(certificate)):
        @property
        def upper(self):
            return Fraction(0)

    with pytest.raises(CertificateError, match="fraction"):
        check(sealed(certificate, classes, bound=Generous(0)), classes)
    fields = {field.name: getattr(certificate, field.name) for field in dataclasses.fields(certificate)}
    with pytest.raises(CertificateError, match="not a certificate"):
        check(Low(**fields), classes)


def test_a_field_written_twice_is_damage(tmp_path, certificate):
    path = certificate.save(tmp_path / "certificate.json")
    path.write_text(path.read_text().replace('"upper"', '"upper": 0.000000001,\n"upper"', 1))
    with pytest.raises(DamagedCertificateError, match="twice"):
        Certificate.load(path)


def test_three_logits_may_certify_more_by_constants_of_their_differences():
    """Why the claim for more than two classes is about (f_y - max f_j) / 2 and 1-Lipschitz logits only."""
    points = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    claimed = check(solve([point[None] for point in points]), [point[None] for point in points]).upper
    weight = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3
    logits = (points - 0.5) @ weight.T
    others = logits - np.diag(np.full(4, np.inf))
    margin = (np.diag(logits) - others.max(axis=1)).min()
    pairwise = max(np.abs(p - q).sum() for p in weight for q in weight)
    assert margin / 2 <= float(claimed) + 1e-9
    assert margin / pairwise > float(claimed) + 0.1
