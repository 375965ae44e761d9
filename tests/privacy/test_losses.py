"""Constants of the losses against the worst gradients found, separability, published breaks, and refusals."""

import copy
import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lablib.privacy import (
    HKR,
    KR,
    MAE,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    Hinge,
    check_loss,
    loss_lipschitz,
)
from lablib.privacy.cotangents import ClipCotangent
from lablib.privacy.losses import LOSSES

EVERY = [loss() for loss in LOSSES]


def hkr_supremum(alpha, classes):
    cosine = 1.0 if classes < 3 else math.sqrt(classes / (2 * (classes - 1)))
    return math.sqrt(1 + alpha**2 + 2 * cosine * alpha)


CASES = [  # loss, number of outputs, the supremum of the gradient norm; the stated constant unless said otherwise
    *((CrossEntropy(tau), c, math.sqrt(2)) for tau in (0.5, 1.0, 32.0) for c in (2, 3, 10)),
    (BinaryCrossEntropy(), 1, 1.0),
    (BinaryCrossEntropy(16.0), 5, 5**-0.5),  # stated: 1, which holds for any number of outputs
    (BinaryCrossEntropy(16.0, outputs=5), 5, 5**-0.5),
    *((Hinge(margin), c, 1.0) for margin in (0.1, 1.0) for c in (1, 2, 10)),
    *((KR(), c, 1.0) for c in (1, 2, 3, 10)),
    (KR([0.5, 3.0, 1.0]), 3, 3.0),
    (KR([0.5, 3.0]), 1, 3.0),
    *((HKR(2.0, 0.5), c, hkr_supremum(2.0, c)) for c in (1, 2, 3, 10)),  # stated: 3, attained for C <= 2
    *((HKR(2.0, 0.5, outputs=c), c, hkr_supremum(2.0, c)) for c in (1, 2, 3, 10)),
    (HKR(50.0, 0.5, [0.2, 0.1], outputs=2), 2, 0.2 * 51),
    (HKR(0.0), 4, 1.0),
    (MAE(), 1, 1.0),
    (MAE(), 10, 10**-0.5),  # stated: 1
    (MAE(outputs=10), 10, 10**-0.5),
    *((Cosine(k), c, 1 / k) for k in (0.1, 1.0, 4.0) for c in (2, 10)),
]
IDS = [f"{loss}-{classes}" for loss, classes, _ in CASES]
LOOSE = [n for n, (loss, _, supremum) in enumerate(CASES) if supremum < 0.98 * loss.lipschitz]


def every_target(loss, classes, samples, dtype):
    """All targets, the extreme ones where there are infinitely many, cycled through the samples."""
    if isinstance(loss, BinaryCrossEntropy):
        corners = list(itertools.product((0.0, 1.0), repeat=classes))
        return torch.tensor(corners, dtype=dtype).repeat(-(-samples // len(corners)), 1)[:samples]
    if classes == 1 and isinstance(loss, MAE):
        return torch.zeros(samples, 1, dtype=dtype)
    labels = torch.arange(samples) % max(2, classes)
    return labels if classes > 1 else 2 * labels - 1


def gradients(loss, outputs, targets, create_graph=False):
    (gradient,) = torch.autograd.grad(loss(outputs, targets).sum(), outputs, create_graph=create_graph)
    return gradient


def worst_gradient(loss, classes, dtype, steps=40):
    """Gradient ascent on the norm of the gradient, from starts of every size, for every target."""
    samples = 40 * max(2, classes)
    torch.manual_seed(classes)
    starts = torch.randn(samples, classes, dtype=dtype) * torch.logspace(-3, 2, samples, dtype=dtype)[:, None]
    starts[:classes] = 0.0  # ties, and the point where a norm has no derivative
    outputs, targets, worst = starts, every_target(loss, classes, samples, dtype), 0.0
    for _ in range(steps):
        outputs = outputs.detach().requires_grad_()
        gradient = gradients(loss, outputs, targets, create_graph=True)
        norms = gradient.norm(dim=1)
        worst = max(worst, norms.max().item())
        if not norms.requires_grad:  # linear in the outputs: the same everywhere
            break
        (uphill,) = torch.autograd.grad(norms.sum(), outputs, allow_unused=True)
        if uphill is None:
            break
        uphill = uphill.nan_to_num()  # at 0 a norm has no second derivative
        size = uphill.norm(dim=1, keepdim=True).clamp(min=1e-30)
        outputs = outputs + uphill / size * (0.3 + 0.3 * outputs.detach().norm(dim=1, keepdim=True))
    return worst


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("loss", "classes", "supremum"), CASES, ids=IDS)
def test_no_gradient_is_longer_than_the_constant_and_one_comes_near(loss, classes, supremum, dtype):
    worst = worst_gradient(loss, classes, dtype)
    rounding = 1 + 16 * torch.finfo(dtype).eps
    assert worst <= loss.lipschitz * rounding
    assert 0.98 * supremum <= worst <= supremum * rounding


def test_the_constant_is_the_supremum_but_where_the_number_of_outputs_is_not_given():
    assert {IDS[n] for n in LOOSE} == {
        "BinaryCrossEntropy(temperature=16, outputs=None)-5",
        "HKR(alpha=2, margin=0.5, weights=None, outputs=None)-3",
        "HKR(alpha=2, margin=0.5, weights=None, outputs=None)-10",
        "MAE(outputs=None)-10",
    }
    for loss, _, supremum in CASES:
        assert supremum <= loss.lipschitz * (1 + 1e-12)
    assert CrossEntropy(7.0).lipschitz ** 2 >= 2.0


@pytest.mark.parametrize("loss", EVERY, ids=str)
def test_no_sample_depends_on_another(loss):
    torch.manual_seed(0)
    outputs = torch.randn(6, 4, dtype=torch.float64)
    targets = every_target(loss, 4, 6, torch.float64)
    table = torch.autograd.functional.jacobian(lambda f: loss(f, targets), outputs)  # (6, 6, 4)
    off = ~torch.eye(6, dtype=torch.bool)
    assert table[off].abs().max() == 0.0
    assert table[~off].abs().max() > 0.0
    alone = torch.cat([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(6)])
    assert torch.allclose(loss(outputs, targets), alone, rtol=1e-14, atol=0)


def coupled_kr(outputs, one_hot):
    """The published form: every class weighted by how often the batch has it; mean over the batch follows."""
    share = one_hot.mean(0)
    return -((one_hot / share - (1 - one_hot) / (1 - share)) * outputs).mean(1)


def test_weights_from_the_batch_break_the_constant_and_public_ones_do_not():
    labels = torch.tensor([0] + [1] * 19)
    outputs = torch.zeros(20, 2, dtype=torch.float64, requires_grad=True)
    norms = gradients(lambda f, t: coupled_kr(f, F.one_hot(t).double()), outputs, labels).norm(dim=1)
    assert norms.max().item() == pytest.approx(14.142, abs=1e-3)  # sqrt(200)
    # one sample more changes the gradients of others: no sensitivity follows from the norm of one gradient
    fewer = outputs[:-1].detach().requires_grad_()
    less = gradients(lambda f, t: coupled_kr(f, F.one_hot(t).double()), fewer, labels[:-1])
    assert abs(less[0].norm().item() - norms[0].item()) > 0.5
    for loss in (KR(), HKR(alpha=1.0), KR([10.0, 10 / 19])):
        own = gradients(loss, outputs, labels)
        assert own.norm(dim=1).max().item() <= loss.lipschitz * (1 + 1e-15)
        assert torch.equal(gradients(loss, fewer, labels[:-1]), own[:-1])


def test_the_published_constant_of_the_cosine_is_too_small_for_a_norm_above_one():
    outputs = torch.full((1, 3), 1e-3, dtype=torch.float64, requires_grad=True)
    worst = gradients(Cosine(2.0), outputs, torch.tensor([1])).norm().item()
    assert worst == pytest.approx(0.5)
    assert worst > 1 / 2.0**2  # as published
    assert worst <= Cosine(2.0).lipschitz


def test_clipping_lowers_the_noise_and_the_published_comparison_does_not():
    loss, batch, clip = CrossEntropy(8.0), 1000, 0.1
    published = batch * min(loss.lipschitz / batch, clip)  # bound of one sample's part of the summed gradient
    assert published == pytest.approx(loss.lipschitz)  # no noise is saved
    assert loss_lipschitz(loss, clip) == clip < published / 14
    assert loss_lipschitz(loss, 3.0) == loss_lipschitz(loss) == loss.lipschitz
    outputs = torch.randn(50, 10, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(50) % 10
    clipped = gradients(lambda f, t: loss(ClipCotangent(clip)(f), t), outputs, labels).norm(dim=1)
    assert gradients(loss, outputs, labels).norm(dim=1).max() > clip
    assert clipped.max().item() <= clip
    assert clipped.median().item() == pytest.approx(clip)  # most were longer


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan, math.inf, "1", True])
def test_a_clipping_norm_must_be_a_positive_number(clip):
    with pytest.raises(ValueError, match="loss_clip"):
        loss_lipschitz(CrossEntropy(), clip)


def test_values_against_plain_formulas():
    f = torch.tensor([[0.3, -1.2, 2.0], [4.0, 0.1, 0.2]], dtype=torch.float64)
    y, rows = torch.tensor([1, 0]), torch.tensor([[0.2, 0.0, 1.0], [1.0, 0.5, 0.0]], dtype=torch.float64)
    for n, (a, b, c) in enumerate(f.tolist()):
        own, others = (b, (a, c)) if n == 0 else (a, (b, c))
        tau = 3.0
        soft = math.log(sum(math.exp(tau * v) for v in (a, b, c))) / tau - own
        assert CrossEntropy(tau)(f, y)[n].item() == pytest.approx(soft)
        binary = [math.log1p(math.exp(tau * v)) - t * tau * v for v, t in zip((a, b, c), rows[n].tolist())]
        assert BinaryCrossEntropy(tau)(f, rows)[n].item() == pytest.approx(sum(binary) / 3 / tau)
        hinge = max(0.0, 0.7 - (own - max(others)) / math.sqrt(2))
        assert Hinge(0.7)(f, y)[n].item() == pytest.approx(hinge)
        kr = -math.sqrt(2 / 3) * (own - sum(others) / 2)
        assert KR()(f, y)[n].item() == pytest.approx(kr)
        assert HKR(5.0, 0.7)(f, y)[n].item() == pytest.approx(kr + 5 * hinge)
        weights = [2.0, 0.5, 1.0]
        assert HKR(5.0, 0.7, weights)(f, y)[n].item() == pytest.approx(weights[y[n]] * (kr + 5 * hinge))
        error = sum(abs(v - t) for v, t in zip((a, b, c), rows[n].tolist())) / 3
        assert MAE()(f, rows)[n].item() == pytest.approx(error)
        cosine = own / max(2.0, math.hypot(a, b, c))
        assert Cosine(2.0)(f, y)[n].item() == pytest.approx(-cosine)
    assert MAE()(f, y).tolist() == MAE()(f, F.one_hot(y, 3).double()).tolist()
    assert Cosine(2.0)(f, 9 * F.one_hot(y, 3)).tolist() == Cosine(2.0)(f, y).tolist()


@pytest.mark.parametrize("targets", [[-1, 1], [-1.0, 1.0], [[-1.0], [1.0]]])
def test_one_output_takes_signs(targets):
    f = torch.tensor([[0.3], [2.0]])
    assert Hinge(1.0)(f, torch.tensor(targets)).tolist() == pytest.approx([1.3, 0.0])
    assert KR([2.0, 3.0])(f, torch.tensor(targets)).tolist() == pytest.approx([0.6, -6.0])
    assert BinaryCrossEntropy()(f, torch.tensor([True, False])).tolist() == pytest.approx(
        F.softplus(torch.tensor([-0.3, 2.0])).tolist()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("loss", EVERY, ids=str)
def test_empty_batches_and_extreme_outputs(loss, dtype):
    empty = torch.zeros(0, 4, dtype=dtype, requires_grad=True)
    targets = every_target(loss, 4, 64, dtype)
    losses = loss(empty, targets[:0])
    assert losses.shape == (0,)
    assert losses.dtype == dtype
    assert gradients(loss, empty, targets[:0]).shape == (0, 4)
    signs = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)), dtype=dtype)[:64]
    info = torch.finfo(dtype)
    for size in (info.max, info.max / 2, info.max**0.5, info.tiny, info.tiny * info.eps):
        outputs = (size * signs).requires_grad_()
        gradient = gradients(loss, outputs, targets)
        assert torch.isfinite(gradient).all()
        assert gradient.norm(dim=1).max().item() <= loss.lipschitz * (1 + 16 * info.eps)


LABELS, NUMBERS = torch.tensor([0, 2, 1]), torch.zeros(3, 3)


@pytest.mark.parametrize("loss", EVERY, ids=str)
@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (torch.zeros(3, 2), "the targets are"),
        (torch.zeros(3, 3, dtype=torch.complex64), "the targets are"),
        (LABELS.int(), "the targets are"),
        (LABELS[:2], "the targets are"),
        (LABELS[:, None], "the targets are"),
        (torch.tensor([0, 3, 1]), "the targets are"),
        (torch.tensor([0, -100, 1]), "the targets are"),
        (NUMBERS / 0.0, r"NaN|the targets are"),
        ([0, 2, 1], "must be a tensor"),
    ],
    ids=["width", "complex", "int32", "few", "column", "above", "ignored", "nan", "list"],
)
def test_bad_targets_are_refused_with_one_sentence(loss, targets, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        loss(torch.zeros(3, 3), targets)
    assert ". " not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "sentence"),
    [
        (CrossEntropy(), torch.zeros(3), LABELS, r"takes outputs \(B, C\)"),
        (CrossEntropy(), torch.zeros(3, 1), LABELS, "C >= 2"),
        (CrossEntropy(), torch.zeros(3, 3, dtype=torch.float16), LABELS, "float32 or float64"),
        (CrossEntropy(), torch.full((3, 3), math.nan), LABELS, "not finite"),
        (CrossEntropy(1e3), torch.full((3, 3), 1e38), LABELS, "not finite"),
        (KR(), torch.full((3, 3), math.inf), LABELS, "not finite"),
        (KR(), torch.zeros(3, 1), LABELS, "-1 or 1"),
        (KR([1.0, 2.0]), torch.zeros(3, 3), LABELS, "2 class weights for 3"),
        (MAE(outputs=2), torch.zeros(3, 3), NUMBERS, "made for 2 outputs"),
        (BinaryCrossEntropy(), torch.zeros(3, 1), torch.tensor([0.0, 1.0, 1.1]), r"lie in \[0, 1\]"),
        (Cosine(), torch.zeros(3, 3), torch.zeros(3, 3), "direction is 0"),
    ],
    ids=str,
)
def test_bad_outputs_are_refused(loss, outputs, targets, sentence):
    with pytest.raises(ValueError, match=sentence):
        loss(outputs, targets)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: CrossEntropy(0.0), "temperature"),
        (lambda: CrossEntropy(math.nan), "temperature"),
        (lambda: BinaryCrossEntropy(outputs=0), "outputs"),
        (lambda: MAE(outputs=2.0), "outputs"),
        (lambda: Hinge(-1.0), "margin"),
        (lambda: Cosine(math.inf), "min_norm"),
        (lambda: HKR(-1.0), "alpha"),
        (lambda: HKR("2"), "alpha"),
        (lambda: KR([1.0]), "weights"),
        (lambda: KR([1.0, -1.0]), "weights"),
        (lambda: KR([0.0, 0.0]), "weights"),
        (lambda: KR([1.0, math.nan]), "weight"),
    ],
    ids=str(list(range(12)))[1:-1].split(", "),
)
def test_bad_settings_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_settings_are_fixed_and_copies_keep_them():
    loss = HKR(2.0, 0.5, [1.0, 2.0, 4.0], outputs=3)
    with pytest.raises(AttributeError, match="fixed"):
        loss.alpha = 0.0
    with pytest.raises(AttributeError):
        loss.lipschitz = 0.1
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert (str(other), other.lipschitz) == (str(loss), loss.lipschitz)
        assert check_loss(other) == loss.lipschitz


@pytest.mark.parametrize("loss", EVERY, ids=str)
def test_a_known_loss_passes_and_a_changed_one_does_not(loss):
    assert check_loss(loss) == loss_lipschitz(loss) == loss.lipschitz
    hooked, replaced = copy.deepcopy(loss), copy.deepcopy(loss)
    hooked.register_forward_hook(lambda module, inputs, losses: 2 * losses)
    backward = copy.deepcopy(loss)
    backward.register_full_backward_hook(lambda module, inputs, outputs: None)
    replaced.forward = lambda outputs, targets: outputs.square().sum(1)
    own = type("Own", (type(loss),), {})()
    for changed in (hooked, replaced, backward, own, type(loss)):
        with pytest.raises(ValueError, match=r"hook|replaced|is no loss|is a class"):
            check_loss(changed)


TORCH_LOSSES = [name for name in nn.modules.loss.__all__ if name.endswith("Loss")]
NO_MODULE_OF_OURS = {
    "AdaptiveLogSoftmaxWithLoss",
    "CTCLoss",
    "GaussianNLLLoss",
    "MarginRankingLoss",
    "PoissonNLLLoss",
    "TripletMarginLoss",
    "TripletMarginWithDistanceLoss",
}


@pytest.mark.parametrize("name", [name for name in TORCH_LOSSES if name not in NO_MODULE_OF_OURS])
def test_losses_of_torch_are_refused_by_name_with_what_to_take(name):
    with pytest.raises(ValueError, match=f"{name} .* take lablib.privacy.[A-Z]"):
        check_loss(getattr(nn, name)(*((3, 4) if name.startswith("Linear") else ())))


@pytest.mark.parametrize("other", [F.cross_entropy, F.mse_loss, F.binary_cross_entropy_with_logits])
def test_functions_of_torch_too(other):
    with pytest.raises(ValueError, match=f"{other.__name__} .* take lablib.privacy"):
        check_loss(other)


@pytest.mark.parametrize(
    "other", [nn.CTCLoss(), nn.Linear(2, 2), torch.ones(2), None, len, 1.0], ids=lambda x: type(x).__name__
)
def test_anything_else_is_refused_with_the_list(other):
    with pytest.raises(ValueError, match="take one of CrossEntropy, BinaryCrossEntropy, Hinge, KR, HKR"):
        check_loss(other)
