"""Schedules, losses and the loop."""

import pytest
import torch
from torch import nn

from lablib import layers as L
from lablib.train.loop import fit
from lablib.train.losses import cross_entropy, hinge, multi_margin
from lablib.train.schedules import constant, cosine, exponential


def test_schedules():
    assert constant(0.3)(99) == 0.3
    falling = cosine(2.0, 10, end=1.0)
    assert [falling(0), falling(5), falling(10), falling(11)] == [2.0, 1.5, 1.0, 1.0]
    growing = exponential(8.0, 1000.0, 100, begin=50)
    assert growing(0) == growing(50) == 8.0
    assert growing(100) == pytest.approx((8000.0) ** 0.5)
    assert growing(150) == growing(10**6) == pytest.approx(1000.0)
    for call in (lambda: cosine(1.0, 0), lambda: exponential(0.0, 1.0, 5), lambda: exponential(1.0, 2.0, 0)):
        with pytest.raises(ValueError, match="needs"):
            call()


def test_losses_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    labels = torch.tensor([0, 2])
    assert multi_margin(logits, labels, 2.0).item() == pytest.approx((0.5 + 1.0) / 2)
    assert hinge(torch.tensor([[0.5], [-0.5]]), torch.tensor([1.0, 1.0]), 0.5).item() == pytest.approx(1.0)
    assert cross_entropy(logits, labels, 1.0).item() == pytest.approx(
        nn.functional.cross_entropy(logits, labels).item()
    )
    warm = cross_entropy(logits, labels, 100.0).item()
    assert warm == pytest.approx((0.0 + torch.log(torch.tensor(3.0)).item() / 100) / 2, abs=1e-6)


def test_temperature_keeps_the_lipschitz_constant():
    logits = (5 * torch.randn(100, 4, dtype=torch.float64)).requires_grad_()
    for temperature in (0.1, 1.0, 50.0):
        slopes = torch.autograd.grad(
            100 * cross_entropy(logits, torch.zeros(100, dtype=torch.long), temperature), logits
        )
        assert slopes[0].norm(dim=1).max() <= 2**0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda: multi_margin(torch.ones(2, 3), torch.zeros(2, dtype=torch.long), 0.0),
        lambda: multi_margin(torch.ones(2, 1), torch.zeros(2, dtype=torch.long), 1.0),
        lambda: multi_margin(torch.ones(2, 3), torch.zeros(3, dtype=torch.long), 1.0),
        lambda: cross_entropy(torch.ones(2, 3), torch.zeros(2), 1.0),
        lambda: cross_entropy(torch.ones(2, 3), torch.zeros(2, dtype=torch.long), -1.0),
        lambda: hinge(torch.ones(2, 1), torch.ones(3), 1.0),
    ],
)
def test_bad_losses_are_refused(call):
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        call()


def problem():
    x = torch.rand(128, 2)
    return x, torch.where(x.amax(1) > 0.5, 1.0, -1.0)


def test_fit_learns_and_keeps_the_mode():
    net = L.LipschitzSequential(L.LInfLinear(2, 16), L.MaxMin(), L.LInfLinear(16, 1)).eval()
    seen = []
    losses = fit(
        net,
        lambda f, t: hinge(f, t, 0.2),
        [problem()],
        150,
        cosine(3e-2, 150),
        on_step=lambda *a: seen.append(a),
    )
    assert len(losses) == 150
    assert losses[-1] < 0.5 * losses[0]
    assert seen == list(enumerate(losses))
    assert not net.training


def test_ctrl_c_keeps_what_was_learned():
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()

    def stop(step, loss):
        if step == 4:
            raise KeyboardInterrupt

    def train(**options):
        return fit(
            net, lambda f, t: hinge(f, t, 0.2), [problem()], 100, progress=False, on_step=stop, **options
        )

    with pytest.raises(KeyboardInterrupt):
        train()
    assert len(train(keep_on_interrupt=True)) == 5
    assert not torch.equal(net.weight, before)
    assert net.training


def test_batches_may_be_a_function_and_must_not_be_empty():
    net = nn.Linear(2, 1)
    assert len(fit(net, lambda f, t: hinge(f, t, 0.2), lambda: iter([problem()]), 3, progress=False)) == 3
    with pytest.raises(ValueError, match="no batches"):
        fit(net, lambda f, t: hinge(f, t, 0.2), [], 3, progress=False)
    with pytest.raises(ValueError, match="no batches"):
        fit(net, lambda f, t: hinge(f, t, 0.2), iter([problem()]), 3, progress=False)


def test_a_loss_that_explodes_is_named():
    net = nn.Linear(2, 1)
    with pytest.raises(ValueError, match="step 0"):
        fit(net, lambda f, t: (f / 0.0).mean(), [problem()], 3, progress=False)


def test_another_optimiser_takes_the_schedule():
    net = nn.Linear(2, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=123.0)
    fit(
        net,
        lambda f, t: hinge(f, t, 0.2),
        [problem()],
        2,
        constant(1e-3),
        optimiser=optimiser,
        progress=False,
    )
    assert optimiser.param_groups[0]["lr"] == 1e-3
