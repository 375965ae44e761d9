"""Exported C and ONNX against the module they come from, and the certificate of what the file holds."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.experiments.exported_numbers import numbers_of
from lablib.experiments.latency import c_call, onnx_call
from lablib.experiments.monotone_export import c_interface, certify_export, export_c, export_onnx
from lablib.layers.monotone import HEADS

onnx_package = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
DIRECTIONS = ((1, 0, -1), (1, 1, 0))


def network(seed=0, **options):
    torch.manual_seed(seed)
    made = L.MonotoneNetwork(3, (8, 16), 2, 1.5, DIRECTIONS, **options)
    with torch.no_grad():  # larger than the caps, so that they bind
        for p in made.parameters():
            p.mul_(3.0)
    return made.eval()


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), L.FullSort(), nn.Linear(6, 4), L.MaxMin(), nn.Linear(4, 1)).eval()


def wrapper():
    torch.manual_seed(0)
    parts = L.LipschitzLinear(3, 6, kind="one-inf"), L.GroupSort(3), L.LipschitzLinear(6, 1, kind="inf")
    return L.MonotonicWrapper(nn.Sequential(*parts), 1.0, (1, -1, 0)).eval()


MODELS = {
    "plain": network,
    "groups of four": lambda: network(group_size=4),
    "groups of eight": lambda: network(group_size=8, head="softplus"),
    "lipschitz residual": lambda: network(residual="lipschitz", kind="two"),
    "sigmoid": lambda: network(head="sigmoid", kind="one"),
    "float64": lambda: network().double(),
    "frozen": lambda: network(head="sigmoid").frozen(),
    "wrapper": wrapper,
    "chain": chain,
    "linear": lambda: L.MonotoneNetwork(3, (), 1).eval(),
}  # fmt: skip


def events(rows=300):
    """Random ones, of several sizes, and ties: equal features, zeros, repeated rows."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(rows, 3)) * 10.0 ** rng.integers(-2, 2, (rows, 1))).astype(np.float32)
    x[:20], x[20:40, 1], x[40:60] = 0.0, x[20:40, 0], x[60]
    return x


def exact(model, x):
    with torch.no_grad():
        frozen = model.frozen() if isinstance(model, L.MonotoneNetwork) else model
        return frozen.double()(torch.from_numpy(x).double()).numpy()


def close(found, wanted, x):
    """Float32 through three layers of slopes up to 5: 40 roundings of numbers of this size."""
    size = 1.0 + np.abs(x).max(1, keepdims=True)
    return (
        found.dtype == np.float32
        and found.shape == wanted.shape
        and (np.abs(found - wanted) < 2e-5 * size).all()
    )


@pytest.mark.parametrize("name", MODELS)
def test_onnx_is_the_same_function(name, tmp_path):
    x, model = events(), MODELS[name]()
    call = onnx_call(export_onnx(model, tmp_path / "net.onnx"))
    assert close(call(x), exact(model, x), x)
    assert close(call(x[:1]), exact(model, x[:1]), x[:1])


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_c_is_the_same_function(name, tmp_path):
    x, model = events(), MODELS[name]()
    call = c_call(export_c(model, tmp_path / "net.c"))
    assert close(call(x), exact(model, x), x)
    assert close(call(x[:1]), exact(model, x[:1]), x[:1])


@needs_compiler
@pytest.mark.parametrize("seed", range(2))
def test_tied_units_and_float32(seed, tmp_path):
    """Units that tie everywhere, against torch in the same precision."""
    model = network(seed)
    with torch.no_grad():
        for layer in model.network[:-1:2]:
            free = layer.parametrizations.weight.original
            free[1::2] = free[::2]
            layer.bias[1::2] = layer.bias[::2]
        x = events()
        wanted = model(torch.from_numpy(x)).numpy()
    assert close(c_call(export_c(model, tmp_path / "net.c"))(x), wanted, x)
    assert close(onnx_call(export_onnx(model, tmp_path / "net.onnx"))(x), wanted, x)


@needs_compiler
def test_standardised_inputs(tmp_path):
    model = network(head="sigmoid")
    mean, deviation = np.array([1.0, -20.0, 0.0]), np.array([0.5, 30.0, 1e-3])
    z = events()
    x = (z * deviation + mean).astype(np.float32)
    wanted = exact(model, (x - mean) / deviation)
    options = {"mean": mean, "deviation": deviation}
    assert close(c_call(export_c(model, tmp_path / "net.c", **options))(x), wanted, 100 * (1 + np.abs(z)))
    assert close(
        onnx_call(export_onnx(model, tmp_path / "net.onnx", **options))(x), wanted, 100 * (1 + np.abs(z))
    )
    bare = certify_export(export_c(model, tmp_path / "bare.c"))
    for ends, whole in zip(certify_export(tmp_path / "net.c"), bare):
        np.testing.assert_allclose(ends, whole / deviation, rtol=1e-6)


@needs_compiler
def test_c_compiles_without_warnings(tmp_path):
    path = export_c(network(head="softplus"), tmp_path / "INPUTS_net.c")
    compiler = shutil.which("cc") or shutil.which("gcc")
    command = [
        compiler,
        "-std=c99",
        "-pedantic",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-c",
        str(path),
        "-o",
        "/dev/null",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert c_interface(path) == ("INPUTS_net", 3, 2)


def fell(kind, dtype, residual):
    """An "increasing" network fitted to a falling function, where slopes are driven to 0."""
    torch.manual_seed(0)
    model = L.MonotoneNetwork(3, (8, 8), 1, 2.0, (1, -1, 0), kind=kind, residual=residual, dtype=dtype)
    x = torch.randn(64, 3, dtype=dtype)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(40):
        optimiser.zero_grad()
        (model(x) + 3 * x[:, :1] - 3 * x[:, 1:2]).square().mean().backward()
        optimiser.step()
    return model.eval()


@pytest.mark.parametrize("residual", ["certified", "lipschitz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["one-inf", "one", "two"])
def test_exported_numbers_keep_the_certificate(kind, dtype, residual, tmp_path):
    model = fell(kind, dtype, residual)
    low, high = (end.detach().numpy() for end in model.slope_bounds())
    bounds = [
        certify_export(export_c(model, tmp_path / "net.c")),
        certify_export(export_onnx(model, tmp_path / "net.onnx")),
    ]
    np.testing.assert_array_equal(bounds[0], bounds[1])
    found = bounds[0]
    assert found[0].dtype == np.float64
    assert found[0][0, 0] >= 0.0
    assert found[1][0, 1] <= 0.0
    assert (found[0] >= low - 1e-5).all()  # not wider than the module's own, but for rounding
    assert (found[1] <= high + 1e-5).all()


def test_bounds_enclose_the_gradients_of_the_file(tmp_path):
    """Gradients of a torch network made of the very numbers in the ONNX file."""
    model = network(group_size=4)
    path = export_onnx(model, tmp_path / "net.onnx")
    arrays = {
        v.name: torch.from_numpy(np.array(onnx_package.numpy_helper.to_array(v)))
        for v in onnx_package.load(path).graph.initializer
    }
    x = torch.from_numpy(events()).double().requires_grad_()
    y = x
    for k in range(3):
        y = y @ arrays[f"weight_{k}"].double() + arrays[f"bias_{k}"].double()
        if k < 2:
            y = y.unflatten(1, (4, -1)).sort(1).values.flatten(1)
    y = y + x @ arrays["added"].double()
    low, high = certify_export(path)
    for o in range(2):
        (slopes,) = torch.autograd.grad(y[:, o].sum(), x, retain_graph=True)
        assert (slopes.numpy() >= low[o] - 1e-12).all()
        assert (slopes.numpy() <= high[o] + 1e-12).all()
    np.testing.assert_allclose(y.detach().numpy(), exact(model, events()), rtol=1e-5, atol=1e-4)


def test_a_changed_number_is_certified_as_it_is(tmp_path):
    path = export_onnx(network(), tmp_path / "net.onnx")
    stored = onnx_package.load(path)
    added = next(v for v in stored.graph.initializer if v.name == "added")
    added.raw_data = b"\0" * len(added.raw_data)
    path.write_bytes(stored.SerializeToString())
    assert certify_export(path)[0][0, 0] < 0.0


def test_first_lines_that_are_not_true_or_hold_code_are_refused(tmp_path):
    """Of a C file: what it says must be what is proven, and its only comment up to the code."""
    path = export_c(network(), tmp_path / "net.c")
    text = path.read_text()
    start = text.index("0x", text.index("net_added"))
    code = "#define net_sort(h, size, groups)\n/*"
    for changed in (
        text[:start] + "0x0p+0f" + text[text.index(",", start) :],
        text.replace("input 0: ", "input 0: 5", 1),
        text.replace(":", "*/ \n" + code, 1),
        text.replace(":", "*\\\n/\n" + code, 1),  # a comment may end across lines that are joined
        "#define float double\n" + text,
    ):
        path.write_text(changed)
        with pytest.raises(ValueError, match="do not say what is proven"):
            certify_export(path)


def test_numbers_that_make_no_network_are_refused(tmp_path):
    """A negative factor turns slopes round, and a graph without its sorts or with too short a bias is another."""
    rng = np.random.default_rng(0)
    numbers = numbers_of(network(), rng.normal(size=3), rng.uniform(1.0, 2.0, 3))
    for changes in (
        {"factor": -numbers.factor},
        {"factor": numbers.factor.astype(np.float64)},
        {"mean": None},
        {"sizes": []},
        {"sizes": [2, 3]},
        {"biases": [b[:1] for b in numbers.biases]},
        {"added": numbers.added[:1]},
    ):
        with pytest.raises(ValueError, match=r"fit|should be|go together"):
            dataclasses.replace(numbers, **changes)
    path = export_c(network(), tmp_path / "net.c", mean=np.zeros(3), deviation=np.ones(3))
    path.write_text(path.read_text().replace("net_factor[3] = {", "net_factor[3] = {-"))
    with pytest.raises(ValueError, match="export it again"):
        certify_export(path)


def test_graphs_under_another_meaning_are_refused(tmp_path):
    path = export_onnx(network(), tmp_path / "net.onnx")
    content = path.read_bytes()
    for change in (
        lambda model: setattr(model.opset_import[0], "version", 7),
        lambda model: setattr(model.functions.add(), "name", "Max"),
        lambda model: setattr(model.graph.initializer[0], "data_type", 999),
        lambda model: setattr(model.graph.initializer[0], "data_location", 1),
    ):
        model = onnx_package.load_from_string(content)
        change(model)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(ValueError, match="export it again"):
            certify_export(path)
    with pytest.raises(ValueError, match="cannot be opened"):
        certify_export(tmp_path)


def test_refuses_files_that_are_not_exports(tmp_path):
    c, onnx = export_c(network(), tmp_path / "net.c"), export_onnx(network(), tmp_path / "net.onnx")
    code, graph = c.read_text(), onnx.read_bytes()
    for text in (
        code.replace("a < b ? a : b", "a < b ? b : a"),
        code.replace("sum += x[i]", "sum -= x[i]"),
        code[: len(code) // 2],
        code.replace("net_sort(h0, 2, 4)", "net_sort(h0, 2, 2)"),
        "int main(void) { return 0; }",
        "",
    ):
        c.write_text(text)
        with pytest.raises(ValueError, match="export it again"):
            certify_export(c)
    for content in (graph.replace(b"Min", b"Max"), graph[:-40], b"\xff" * 20, b""):
        onnx.write_bytes(content)
        with pytest.raises(ValueError, match="export it again"):
            certify_export(onnx)
    stored = onnx_package.load_from_string(graph)
    stored.graph.initializer[0].CopyFrom(
        onnx_package.numpy_helper.from_array(
            np.full((3, 8), np.nan, np.float32), stored.graph.initializer[0].name
        )
    )
    onnx.write_bytes(stored.SerializeToString())
    with pytest.raises(ValueError, match="export it again"):
        certify_export(onnx)
    with pytest.raises(ValueError, match="does not exist"):
        certify_export(tmp_path / "none.c")


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (network, {"name": "my-net"}, "no name in C"),
        (network, {"name": "2net"}, "no name in C"),
        (network, {"mean": np.zeros(2)}, r"\(3,\) each"),
        (network, {"deviation": np.array([1.0, 0.0, 1.0])}, "positive"),
        (network, {"deviation": np.array([1.0, 1e60, 1.0])}, "too large"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1)), {}, "GroupSort"),
        (lambda: nn.Sequential(nn.Linear(3, 2), L.MaxMin()), {}, "ends in a sort"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.Softplus()), {}, "Softplus"),
    ],
)
def test_refuses(model, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_c(model().eval(), tmp_path / "net.c", **options)
    assert not list(tmp_path.iterdir())


def test_refuses_what_is_not_proven(tmp_path):
    steep = nn.Sequential(nn.Linear(3, 4), L.MaxMin(), nn.Linear(4, 1))
    with torch.no_grad():
        steep[0].weight.fill_(-3.0)
        steep[2].weight.fill_(2.0)
    taken = L.MonotonicWrapper(steep, 1.0, (1, 1, 1), assume_lipschitz=True).eval()
    with pytest.raises(ValueError, match="not proven"):
        export_c(taken, tmp_path / "net.c")
    large = network().double()
    with torch.no_grad():
        large.network[0].bias[0] = 1e60
    with pytest.raises(ValueError, match="float32 does not"):
        export_c(large, tmp_path / "net.c")
    with pytest.raises(ValueError, match=r"end in \.onnx"):
        export_onnx(network(), tmp_path / "net.c")
    assert set(HEADS) == {None, "sigmoid", "softplus"}  # each has its form in C and ONNX
