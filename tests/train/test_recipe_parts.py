"""The parts of the SortNet recipe: losses, schedules, AdamW groups, augmentation, batches and their shares."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lablib.train.augment import Moves, draw_moves, move_images
from lablib.train.losses import ce_hinge, mixture, worst_case
from lablib.train.optimiser import adamw, set_rate
from lablib.train.sampler import Sampler, share
from lablib.train.schedules import p_schedule, smooth_ramp

LOGITS = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.2, 0.0], [0.0, 0.0, 9.0]])
LABELS = torch.tensor([0, 0, 2])


def test_mixture_by_hand():
    # margins 1, -0.2, 9 with eps 1: 1 - 1/2, clipped to 1, clipped to 0
    ramp = (0.5 + 1.0 + 0.0) / 3
    assert mixture(LOGITS, LABELS, 1.0, 0.0).item() == pytest.approx(ramp)
    scale = torch.tensor([2.0], requires_grad=True)
    value = mixture(LOGITS, LABELS, 1.0, 0.5, scale)
    assert value.item() == pytest.approx(ramp + 0.5 * F.cross_entropy(2 * LOGITS, LABELS).item())
    value.backward()
    assert scale.grad.abs() > 0


def test_ce_hinge_by_hand():
    worst = torch.tensor([[0.0, -3.0, -0.5], [0.0, 4.0, 4.0], [-9.0, -9.0, 0.0]])
    # the second is wrong and counts as 0, the mean stays over all three; the third is beyond the hinge
    assert ce_hinge(LOGITS, worst, LABELS, 0.0).item() == pytest.approx(0.5 / 3)
    both = ce_hinge(LOGITS, worst, LABELS, 0.1, 3.0).item()
    assert both == pytest.approx(0.5 / 3 + 0.1 * F.cross_entropy(3 * LOGITS, LABELS).item())


def test_worst_case_by_hand():
    worst = LOGITS - LOGITS.gather(1, LABELS[:, None]) + 0.3 * (1 - F.one_hot(LABELS, 3))
    clean, robust = F.cross_entropy(LOGITS, LABELS), F.cross_entropy(worst, LABELS)
    assert worst_case(LOGITS, worst, LABELS, 0.25).item() == pytest.approx(
        (0.75 * clean + 0.25 * robust).item()
    )


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: mixture(LOGITS, LABELS, 0.0, 0.1), "eps must be positive"),
        (lambda: mixture(LOGITS, LABELS, 1.0, -0.1), "must not be negative"),
        (lambda: mixture(LOGITS, LABELS.float(), 1.0, 0.1), "int64"),
        (lambda: ce_hinge(LOGITS, LOGITS[:2], LABELS, 0.1), "shape of the logits"),
        (lambda: worst_case(LOGITS, LOGITS, LABELS, 1.5), "in \\[0, 1\\]"),
        (lambda: p_schedule(8.0, 1000.0, 0, 10, grid="fast"), "one of real, powers"),
        (lambda: p_schedule(0.5, 1000.0, 0, 10), "start >= 1"),
        (lambda: smooth_ramp(1.0, 10, bend=1.0), "strictly between"),
        (lambda: adamw([], lr=0.0), "rate must be positive"),
        (lambda: move_images(torch.ones(2, 3, 4), draw_moves(2, 1, True, torch.Generator())), "expected"),
        (lambda: Sampler(torch.ones(0, 1, 2, 2), torch.ones(0), scale=1, batch=4, seed=0), "N >= 1"),
        (
            lambda: Sampler(torch.ones(9, 1, 2, 2), torch.ones(9), scale=1, batch=40, seed=0, world=2),
            "larger",
        ),
    ],
)
def test_bad_input_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@given(st.integers(0, 400), st.sampled_from(["real", "powers"]))
def test_p_grows_to_infinity(step, grid):
    p = p_schedule(8.0, 1000.0, 50, 200, grid)
    real = 8.0 * 125.0 ** min(1.0, max(0.0, (step - 50) / 200))
    if step >= 250:
        assert p(step) == math.inf
    elif grid == "real":
        assert p(step) == pytest.approx(real)
    else:
        assert real / 1.5 - 1e-9 <= p(step) <= real + 1e-9
        mantissa = math.frexp(p(step))[0]
        assert mantissa in (0.5, 0.75)
    assert p(step) <= p(step + 1)


def test_smooth_ramp_is_smooth():
    ramp = smooth_ramp(2.0, 1000)
    values = torch.tensor([ramp(step) for step in range(1001)], dtype=torch.float64)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(2.0)
    assert ramp(5000) == pytest.approx(2.0)
    slopes = values.diff()
    assert (slopes >= 0).all()
    assert slopes.diff().abs().max() < 4e-5  # no kink at the bend, of slopes around 2e-3
    assert smooth_ramp(2.0, 0)(0) == 2.0


def test_adam_on_a_linear_layer_is_adam_on_the_scaled_one():
    """lr / sqrt(n), decay sqrt(n), eps sqrt(n) on w do what lr, decay, eps do on W = w sqrt(n)."""
    torch.manual_seed(0)
    n, x, target = 16, torch.randn(64, 16).double(), torch.randn(64, 3).double()
    small = nn.Linear(n, 3, bias=False).double()
    large = nn.Parameter((small.weight * n**0.5).detach())
    ours = adamw([{"params": [small.weight], "decay": True, "fan_in": n}], 0.05, 0.3, eps=1e-3)
    plain = torch.optim.AdamW([large], 0.05, (0.9, 0.99), 1e-3, 0.3)
    for rate in (0.05, 0.05, 0.01, 0.02, 0.02):
        set_rate(ours, rate)
        plain.param_groups[0]["lr"] = rate
        for optimiser, weight in ((ours, small.weight), (plain, large / n**0.5)):
            optimiser.zero_grad()
            (x @ weight.T - target).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(small.weight * n**0.5, large)


def test_weight_decay_leaves_sort_layers_alone():
    kept, decayed = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimiser = adamw([{"params": [kept], "decay": False}, {"params": [decayed], "decay": True}], 0.1, 0.5)
    for parameter in (kept, decayed):
        parameter.grad = torch.zeros(3)
    optimiser.step()
    assert (kept == 1.0).all()
    assert torch.allclose(decayed, torch.tensor(0.95))


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_moves_are_crops_of_an_edge_padded_image(pad):
    images = torch.randint(0, 255, (20, 3, 6, 5), dtype=torch.uint8)
    moves = draw_moves(20, pad, True, torch.Generator().manual_seed(1))
    got = move_images(images, moves)
    assert got.dtype == torch.uint8
    padded = F.pad(images.float(), (pad, pad, pad, pad), mode="replicate").to(torch.uint8) if pad else images
    for b, (row, column) in enumerate((moves.offsets + pad).tolist()):
        crop = padded[b, :, row : row + 6, column : column + 5]
        flipped = padded[b].flip(-1)[:, row : row + 6, column : column + 5]
        assert torch.equal(got[b], flipped if moves.mirrored[b] else crop)
    assert moves.mirrored.any()
    assert not moves.mirrored.all()
    assert moves.offsets.abs().max() <= pad
    still = draw_moves(20, 0, False, torch.Generator())
    assert torch.equal(move_images(images, still), images)
    part = moves[5:9]
    assert isinstance(part, Moves)
    assert torch.equal(move_images(images[5:9], part), got[5:9])


def data(rows=100):
    return torch.arange(rows * 4).remainder(200).to(torch.uint8).view(rows, 1, 2, 2), torch.arange(rows)


def test_an_epoch_sees_every_row_once_in_a_new_order():
    sampler = Sampler(*data(), scale=200, batch=32, seed=5)
    assert sampler.steps_per_epoch == 4
    epochs = []
    for _ in range(2):
        batches = [sampler.next() for _ in range(4)]
        assert [batch.total for batch in batches] == [32, 32, 32, 4]
        epochs.append(torch.cat([batch.y for batch in batches]))
        assert torch.equal(epochs[-1].sort().values, torch.arange(100))
    assert not torch.equal(*epochs)
    assert batches[0].x.max() <= 1.0
    assert torch.equal(batches[0].x, data()[0][batches[0].y].float() / 200)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_what_one_process_sees(world):
    options = {"scale": 200, "batch": 96, "seed": 2, "pad": 1, "flip": True}
    whole = Sampler(*data(), **options)
    parts = [Sampler(*data(), **options, rank=rank, world=world) for rank in range(world)]
    for _ in range(5):
        expected, got = whole.next(), [part.next() for part in parts]
        assert torch.equal(expected.x, torch.cat([batch.x for batch in got]))
        assert torch.equal(expected.y, torch.cat([batch.y for batch in got]))
        assert all(batch.first % 32 == 0 and batch.total == expected.total for batch in got)


@given(st.integers(1, 300), st.integers(1, 9), st.sampled_from([1, 32]))
def test_shares_cover_all_rows_in_order(rows, world, unit):
    covered = [index for rank in range(world) for index in range(rows)[share(rows, unit, rank, world)]]
    assert covered == list(range(rows))


def test_a_sampler_goes_on_from_its_state():
    options = {"scale": 200, "batch": 32, "seed": 2, "pad": 1}
    first, second = Sampler(*data(), **options), Sampler(*data(), **options)
    for _ in range(6):
        first.next()
    second.next()
    second.load_state_dict(first.state_dict())
    for _ in range(6):
        a, b = first.next(), second.next()
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
