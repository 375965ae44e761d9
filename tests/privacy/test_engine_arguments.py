"""What make_private refuses, and what cannot be changed behind its back."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lablib.layers.per_sample import ClipNorm
from lablib.privacy import (
    CliplessEngine,
    CrossEntropy,
)

DELTA = 1e-5


def test_one_engine_for_one_module(network, private):
    engine, net, _, _ = private()
    with pytest.raises(ValueError, match="has an engine already"):
        private(CliplessEngine(), net)
    with pytest.raises(ValueError, match="has an engine already"):
        private(CliplessEngine(), nn.Sequential(ClipNorm(1.0), net[1]))
    with pytest.raises(ValueError, match="another module"):
        private(engine, network(1))


def test_a_refused_module_is_left_as_it_was(private, weights):
    net = nn.Sequential(nn.Linear(6, 3))
    before = weights(net).clone()
    with pytest.raises(ValueError, match="ClipNorm"):
        private(net=net)
    assert torch.equal(weights(net), before)
    private(net=nn.Sequential(ClipNorm(1.0), net[0]))


def test_private_modules_are_not_copied(private):
    model, optimizer, _, _ = private()[3]
    for copier in (copy.deepcopy, pickle.dumps):
        with pytest.raises(ValueError, match=r"save its \.module"):
            copier(model)
        with pytest.raises(ValueError, match=r"save its state_dict"):
            copier(optimizer)
    copy.deepcopy(model.module)


def test_what_the_guarantee_rests_on_cannot_be_set(private):
    criterion, loader = private()[3][2:]
    with pytest.raises(AttributeError, match="bound of PrivateCriterion"):
        criterion.bound = 9.0
    with pytest.raises(AttributeError, match="sample_rate"):
        loader.sample_rate = 1.0


def shared_module():
    return nn.Sequential(ClipNorm(1.0), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": nn.CrossEntropyLoss()}, "CrossEntropy"),
        ({"noise": "none"}, "global, per-layer, balanced"),
        ({"constraint": "clip"}, "constraint"),
        ({"noise_multiplier": -1.0}, "noise multiplier"),
        ({"noise_multiplier": float("nan")}, "noise multiplier"),
        ({"loss_clip": 0.0}, "loss_clip"),
        ({"expected_batch_size": 0}, "expected batch size"),
        ({"expected_batch_size": 41}, "at most"),
        ({"max_physical_batch": 0}, "max_physical_batch"),
        ({"data_loader": [1]}, "DataLoader"),
        ({"net": shared_module()}, "BatchNorm"),
        ({"net": ClipNorm(1.0)}, "optimizer got an empty parameter list"),
        ({"make": lambda parameters, lr: torch.optim.LBFGS(parameters)}, "LBFGS"),
        ({"make": lambda parameters, lr: torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)}, "not trained"),
        ({"make": lambda parameters, lr: torch.optim.SGD(list(parameters)[:3], lr)}, "leaves out 3.bias"),
        ({"make": lambda parameters, lr: None}, "not NoneType"),
        ({"input_shape": (7,)}, "6"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refused_arguments(private, options, message):
    with pytest.raises(ValueError, match=message):
        private(**options)


def test_refused_engines(network, data):
    with pytest.raises(ValueError, match="accountants are"):
        CliplessEngine(accountant="moments")
    with pytest.raises(ValueError, match="seed"):
        CliplessEngine(seed=-1)
    with pytest.raises(ValueError, match="make_private first"):
        CliplessEngine().sensitivity()
    assert CliplessEngine().get_epsilon(DELTA) == 0.0
    net = network()
    with pytest.raises(ValueError, match="one of the two"):
        CliplessEngine(seed=0).make_private_with_epsilon(
            module=net,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.1),
            criterion=CrossEntropy(4.0),
            data_loader=data(),
            target_epsilon=1.0,
            target_delta=DELTA,
            epochs=1,
            noise_multiplier=1.0,
        )
