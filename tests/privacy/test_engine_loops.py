"""Loops that are not the private run: each is refused before anything is released."""

import pytest
import torch
from torch import nn

from lablib.layers.per_sample import ClipNorm

DELTA = 1e-5


def draw(parts):
    model, optimizer, criterion, loader = parts
    return model, optimizer, criterion, next(iter(loader))


def scaled(parts):
    model, _, criterion, (x, y) = draw(parts)
    (2.0 * criterion(model(x), y)).backward()


def divided_by_the_drawn_size(parts):
    model, _, criterion, (x, y) = draw(parts)
    (criterion(model(x), y) / len(x)).backward()


def squared(parts):
    model, _, criterion, (x, y) = draw(parts)
    (criterion(model(x), y) ** 2).backward()


def with_another_term(parts):
    model, _, criterion, (x, y) = draw(parts)
    outputs = model(x)
    (criterion(outputs, y) + outputs.var(0).sum()).backward()


def own_loss(parts):
    model, _, _, (x, y) = draw(parts)
    nn.functional.cross_entropy(model(x), y).backward()


def processed_outputs(parts):
    model, _, criterion, (x, y) = draw(parts)
    outputs = model(x)
    criterion(outputs - outputs.mean(0), y).backward()


def outputs_changed_in_place(parts):
    model, _, criterion, (x, y) = draw(parts)
    outputs = model(x)
    outputs.data.sub_(outputs.data.mean(0))
    criterion(outputs, y).backward()


def hooked_outputs(parts):
    model, _, criterion, (x, y) = draw(parts)
    outputs = model(x)
    outputs.register_hook(lambda gradient: gradient * 3)
    criterion(outputs, y).backward()


def two_losses(parts):
    model, _, criterion, (x, y) = draw(parts)
    outputs = model(x)
    (criterion(outputs, y) + criterion(outputs, (y + 1) % 3)).backward()


def two_backward_passes(parts):
    model, _, criterion, (x, y) = draw(parts)
    loss = criterion(model(x), y)
    loss.backward(retain_graph=True)
    loss.backward()


def two_forward_passes(parts):
    model, _, criterion, (x, y) = draw(parts)
    criterion(model(x), y).backward()
    criterion(model(x), y).backward()


def backward_after_the_step(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    loss = criterion(model(x), y)
    optimizer.step()
    loss.backward()


def another_loader(parts):
    model, _, criterion, loader = parts
    x, y = loader.dataset.tensors
    criterion(model(x[:10]), y[:10]).backward()


def other_samples(parts):
    model, _, criterion, (x, y) = draw(parts)
    criterion(model(torch.cat([x, x])), torch.cat([y, y])).backward()


def no_batch(parts):
    parts[1].step()


def two_steps(parts):
    _, optimizer, _, _ = draw(parts)
    optimizer.step()
    optimizer.step()


def the_plain_module(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    criterion(model.module(x), y).backward()
    optimizer.step()


def a_penalty_on_the_weights(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    (criterion(model(x), y) + model.module[1].weight.square().sum()).backward()
    optimizer.step()


def weights_changed_before_the_step(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    criterion(model(x), y).backward()
    model.module[1].weight.data.mul_(0.1)
    optimizer.step()


def weights_changed_between_two_passes(parts):
    model, _, _, (x, _) = draw(parts)
    model(x)
    model.module[1].weight.data.mul_(0.1)
    model(x)


def weights_changed_and_measured_between_two_passes(parts, private):
    engine, net, _, (model, _, criterion, loader) = private(max_physical_batch=1)
    batches = iter(loader)
    x, y = next(batches)
    criterion(model(x), y).backward()
    net[1].weight.data.mul_(9.0)
    engine.sensitivity()


def layer_changed_before_the_step(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    criterion(model(x), y).backward()
    model.module[0] = ClipNorm(0.1)
    optimizer.step()


def parameter_replaced(parts):
    model, _, _, (x, _) = draw(parts)
    model.module[1].weight = nn.Parameter(model.module[1].weight.detach().clone())
    model(x)


def parameter_frozen(parts):
    model, _, _, (x, _) = draw(parts)
    model.module[1].weight.requires_grad_(False)
    model(x)


def clip_removed(parts):
    model, _, _, (x, _) = draw(parts)
    model.module[0] = nn.Identity()
    model(x)


def forward_hook(parts):
    model, _, _, (x, _) = draw(parts)
    model.module[1].register_forward_hook(lambda layer, inputs, output: output - output.mean(0))
    model(x)


def backward_hook(parts):
    model, _, _, (x, _) = draw(parts)
    model.module[1].register_full_backward_hook(lambda layer, inputs, outputs: (inputs[0] * 9,))
    model(x)


def hook_on_the_loss(parts):
    model, _, criterion, (x, y) = draw(parts)
    criterion.criterion.register_forward_hook(lambda loss, inputs, output: output / len(output))
    criterion(model(x), y)


def criterion_of_another_run(parts, private):
    model, _, _, (x, y) = draw(parts)
    private(loss_clip=0.1)[3][2](model(x), y).backward()


def half_precision_in_the_second_part(parts, private):
    model, _, criterion, loader = private(max_physical_batch=1)[3]
    batches = iter(loader)
    x, y = next(batches)
    criterion(model(x), y).backward()
    x, _ = next(batches)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)


def half_precision_backward(parts):
    model, _, criterion, (x, y) = draw(parts)
    loss = criterion(model(x), y)
    with torch.autocast("cpu", torch.bfloat16):
        loss.backward()


def lower_precision_before_the_step(parts):
    model, optimizer, criterion, (x, y) = draw(parts)
    criterion(model(x), y).backward()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        optimizer.step()
    finally:
        torch.set_float32_matmul_precision(before)


def global_hook_in_the_second_forward_pass(parts):
    model, _, _, (x, _) = draw(parts)
    model(x)
    hook = torch.nn.modules.module.register_module_forward_hook(lambda layer, inputs, output: 9 * output)
    try:
        model(x)
    finally:
        hook.remove()


def inner_module_replaced(parts):
    model, _, _, (x, _) = draw(parts)
    model.module = nn.Sequential(ClipNorm(1.0), nn.Linear(6, 3))
    model(x)


def inner_module_in_evaluation_mode(parts):
    model, _, _, (x, _) = draw(parts)
    model.module.eval()  # model.training is still true
    model(x)


def half_precision(parts):
    model, _, _, (x, _) = draw(parts)
    with torch.autocast("cpu", torch.bfloat16):
        model(x)


def group_added(parts):
    parts[1].add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def group_added_inside(parts):
    _, optimizer, _, _ = draw(parts)
    optimizer.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    optimizer.step()


REFUSED = [
    (scaled, "not that of the returned criterion"),
    (divided_by_the_drawn_size, "not that of the returned criterion"),
    (squared, "not that of the returned criterion"),
    (with_another_term, "not that of the returned criterion"),
    (own_loss, "not that of the returned criterion"),
    (processed_outputs, "not that of the returned criterion"),
    (outputs_changed_in_place, "changed in place"),
    (hooked_outputs, "not that of the returned criterion"),
    (two_losses, "not that of the returned criterion"),
    (two_backward_passes, "count its samples twice|second time"),
    (two_forward_passes, "count its samples twice"),
    (backward_after_the_step, "after the step|modified by an inplace operation"),
    (another_loader, "returned loader"),
    (other_samples, "returned loader"),
    (no_batch, "without a batch"),
    (two_steps, "without a batch"),
    (the_plain_module, "did not come through the private module"),
    (a_penalty_on_the_weights, "did not come through the private module"),
    (weights_changed_before_the_step, "between a forward pass and its step"),
    (weights_changed_between_two_passes, "between a forward pass and its step"),
    (weights_changed_and_measured_between_two_passes, "between a forward pass and its step"),
    (layer_changed_before_the_step, "between a forward pass and its step"),
    (parameter_replaced, "no longer those of make_private"),
    (parameter_frozen, "no longer those of make_private"),
    (clip_removed, "ClipNorm"),
    (forward_hook, "hook"),
    (backward_hook, "hook"),
    (hook_on_the_loss, "hook"),
    (criterion_of_another_run, "returned with the module"),
    (half_precision, "autocast"),
    (half_precision_in_the_second_part, "autocast"),
    (half_precision_backward, "outside of autocast"),
    (lower_precision_before_the_step, "settings of precision"),
    (global_hook_in_the_second_forward_pass, "global forward hook"),
    (inner_module_in_evaluation_mode, "evaluation mode"),
    (inner_module_replaced, "inside was replaced"),
    (group_added, "before make_private"),
    (group_added_inside, "added to or taken from"),
]


OTHER_RUNS = (
    weights_changed_and_measured_between_two_passes,
    criterion_of_another_run,
    half_precision_in_the_second_part,
)  # loops that make a run of their own


@pytest.mark.filterwarnings("ignore:step.. on a batch without a backward pass")
@pytest.mark.parametrize(("loop", "message"), REFUSED, ids=[loop.__name__ for loop, _ in REFUSED])
def test_refused_loops(private, loop, message):
    engine, _, _, parts = private()
    with pytest.raises((ValueError, RuntimeError), match=message):
        loop(parts, private) if loop in OTHER_RUNS else loop(parts)
    assert engine.ledger.steps == (1 if loop in (two_steps, backward_after_the_step) else 0)


def test_several_processes_are_refused(network, private, monkeypatch):
    model, _, _, (x, _) = draw(private()[3])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(ValueError, match=r"without torch\.distributed"):
        model(x)
    with pytest.raises(ValueError, match=r"without torch\.distributed"):
        private(net=network(2))
