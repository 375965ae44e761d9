"""What the engine says to those who come with other habits: one sentence, and what to do."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lablib.layers import MaxMin
from lablib.layers.per_sample import ClipNorm
from lablib.privacy import CliplessEngine, CrossEntropy, sensitivity

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


def arguments(x=X, module=None):
    net = module or nn.Sequential(ClipNorm(1.0), nn.Linear(6, 8), MaxMin(), nn.Linear(8, 3))
    return {
        "module": net,
        "optimizer": torch.optim.SGD(net.parameters(), lr=0.1),
        "criterion": CrossEntropy(4.0),
        "data_loader": DataLoader(TensorDataset(x, torch.arange(40) % 3), batch_size=10),
    }


def private(**options):
    engine = CliplessEngine(seed=5)
    return engine, engine.make_private(**arguments(**options), noise_multiplier=1.0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("max_grad_norm", "max_grad_norm is not needed: .* loss_clip clips"),
        ("grad_sample_mode", "no per-sample gradients"),
        ("clipping", "loss_clip"),
        ("poisson_sampling", "always on"),
        ("secure_mode", "system's entropy"),
        ("nois", "no argument of make_private.*; it takes .*loss_clip"),
    ],
)
def test_words_of_others_are_answered(name, sentence):
    with pytest.raises(TypeError, match=sentence):
        CliplessEngine().make_private(**arguments(), noise_multiplier=1.0, **{name: 1.0})
    target = {"target_epsilon": 1.0, "target_delta": 1e-5, "epochs": 1}
    with pytest.raises(TypeError, match=sentence):
        CliplessEngine().make_private_with_epsilon(**arguments(), **target, **{name: 1.0})


def test_words_of_others_are_answered_by_the_engine_too():
    with pytest.raises(TypeError, match="secure_mode is not offered"):
        CliplessEngine(secure_mode=True)
    with pytest.raises(TypeError, match=r"make_private_with_epsilon\(\) missing"):
        CliplessEngine().make_private_with_epsilon(target_epsilon=1.0, target_delta=1e-5, epochs=1)


def test_training_after_eval_says_to_call_train():
    _, (model, optimizer, criterion, loader) = private()
    model.eval()
    x, y = next(iter(loader))
    criterion(model(x), y).backward()
    with pytest.raises(ValueError, match=r"call model.train\(\)"):
        optimizer.step()
    optimizer.zero_grad()
    model.train()
    criterion(model(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("x", "sentence"),
    [(X.double(), "samples are in torch.float64"), (X.byte(), "torch.uint8 are no features.*/ 255")],
    ids=["float64", "uint8"],
)
def test_samples_of_another_dtype_are_refused(x, sentence):
    _, (model, _, _, loader) = private(x=x)
    with pytest.raises(ValueError, match=sentence):
        model(next(iter(loader))[0])


def test_a_large_delta_is_warned_of():
    pytest.importorskip("dp_accounting")
    with pytest.warns(UserWarning, match="publish one sample"):
        CliplessEngine().make_private_with_epsilon(
            **arguments(), target_epsilon=1.0, target_delta=1 / 40, epochs=1
        )


def test_a_step_that_learns_nothing_is_warned_of_once():
    engine, (_, optimizer, _, loader) = private()
    batches = iter(loader)
    next(batches)
    with pytest.warns(UserWarning, match="without a backward pass") as said:
        optimizer.step()
    assert said[0].filename == __file__
    next(batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert engine.ledger.steps == 2


def test_objects_show_themselves_in_one_line():
    assert "no run" in repr(CliplessEngine())
    engine, (_, _, _, loader) = private()
    assert "sample_rate=0.25, steps=0" in repr(engine)
    assert repr(loader) == "PoissonLoader(samples=40, expected_batch=10, sample_rate=0.25, batches=4)"


class Own(nn.Module):
    pass


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [(Own(), "write it as nn.Sequential, with lablib.privacy.Residual"), (nn.GELU(), "use MaxMin of lablib")],
    ids=["own", "gelu"],
)
def test_unknown_layers_are_answered(layer, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        sensitivity(nn.Sequential(ClipNorm(1.0), layer), (6,), 1.0)
    assert "nn.LeakyReLU" in str(caught.value)


def test_without_a_clip_norm_the_engine_names_it():
    with pytest.raises(ValueError, match="begin the module with ClipNorm"):
        private(module=nn.Sequential(nn.Linear(6, 3)))
