"""One training step of each way to train, on the same trained layers and the same batch: what is timed and weighed.

A step is ``zero_grad``, forward pass, loss, backward pass and ``optimizer.step()`` with all that the method does in
it: clipping, noise, sensitivities, projection. Batches are drawn before; sampling is no part of it. Every package is
used through its own front door (``make_private``), with stochastic gradient descent inside.
"""

import functools
import itertools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lablib.experiments.contest import Contest

CLIPLESS, PLAIN = "clipless", "plain SGD"
PER_SAMPLE, GHOST = "Opacus, per sample", "Opacus, ghost"
METHODS = (CLIPLESS, PLAIN, PER_SAMPLE, GHOST)
IMAGE = (1, 28, 28)
CLASSES = 10
INPUT_BOUND = 10.0  # l2 norm that the clipless network clips its inputs to: about that of an MNIST image
RATE, MOMENTUM = 0.05, 0.9
NOISE, CLIP = 1.0, 1.0
BATCHES = (128, 2048)  # of the comparisons of lablib bench


def mlp() -> nn.Sequential:
    """Return 784-256-10 with ReLU."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, CLASSES))


def convolutional() -> nn.Sequential:
    """Return 4 x 4 windows that overlap (stride 2, 32 channels), 2 x 2 patches (64 channels), a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 2, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, CLASSES),
    )


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {"MLP 784-256-10": mlp, "convolutional": convolutional}


Batch = tuple[Tensor, Tensor]


class Side:
    """One way to train: ``draw()`` gets a batch, a copy as a loader makes it, and ``step()`` trains on it.

    Args:
        draw: returns a batch.
        train: takes one training step with it.
    """

    def __init__(self, draw: Callable[[], Batch], train: Callable[[Tensor, Tensor], object]) -> None:
        self._draw, self._train = draw, train
        self._batch: Batch | None = None

    def draw(self) -> None:
        """Get a batch; the one before is given up first."""
        self._batch = None
        self._batch = self._draw()

    def step(self) -> None:
        """Train on the batch."""
        self._train(*self._batch)

    def __call__(self) -> None:
        """Draw and step."""
        self.draw()
        self.step()


def prepare(method: str, network: str, batch_size: int, device: str = "cpu") -> Side:
    """Return one of :data:`METHODS` ready to train one of :data:`NETWORKS` on synthetic images of MNIST's size.

    Raises:
        ValueError: for an unknown method or network, or an empty batch.
        ModuleNotFoundError: if the method needs Opacus and it is not installed.
    """
    if method not in METHODS or network not in NETWORKS or batch_size < 1:
        raise ValueError(
            f"methods: {', '.join(METHODS)}; networks: {', '.join(NETWORKS)}; batch size at least 1; "
            f"got {method!r}, {network!r}, {batch_size}"
        )
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch_size, *IMAGE, generator=generator).to(device)
    y = torch.randint(CLASSES, (batch_size,), generator=generator).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = NETWORKS[network]().to(device)
    return _PREPARE[method](module, x, y)


def private_contests() -> list[Contest]:
    """Return the comparisons of a private step for ``lablib bench``; here the drawing of its batch is in the time."""

    def sides(network: str, batch_size: int, peer: str) -> tuple[Side, Side]:
        return prepare(CLIPLESS, network, batch_size), prepare(peer, network, batch_size)

    return [
        Contest(f"private step, {network}, batch {size}", peer, functools.partial(sides, network, size, peer))
        for network in NETWORKS
        for size in BATCHES
        for peer in METHODS[1:]
    ]


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=RATE, momentum=MOMENTUM)


def _training(module: nn.Module, optimizer, criterion) -> Callable[[Tensor, Tensor], None]:
    def train(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        criterion(module(x), y).backward()
        optimizer.step()

    return train


def _copying(x: Tensor, y: Tensor) -> Callable[[], Batch]:
    return lambda: (x.clone(), y.clone())


def _plain(module: nn.Module, x: Tensor, y: Tensor) -> Side:
    return Side(_copying(x, y), _training(module, _sgd(module), nn.CrossEntropyLoss()))


def _opacus(mode: str) -> Callable[[nn.Module, Tensor, Tensor], Side]:
    def made(module: nn.Module, x: Tensor, y: Tensor) -> Side:
        from opacus import PrivacyEngine

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its secure mode, which needs a package that is not on PyPI
            module, optimizer, *criterion, _ = PrivacyEngine().make_private(
                module=module,
                optimizer=_sgd(module),
                criterion=nn.CrossEntropyLoss(),
                data_loader=_loader(x, y),
                noise_multiplier=NOISE,
                max_grad_norm=CLIP,
                grad_sample_mode=mode,
                poisson_sampling=False,
            )
        train = _training(module, optimizer, criterion[0] if criterion else nn.CrossEntropyLoss())

        def quiet(x: Tensor, y: Tensor) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # that hooks fire although the input has no gradient: it is meant so
                train(x, y)

        return Side(_copying(x, y), quiet)

    return made


def _clipless(module: nn.Sequential, x: Tensor, y: Tensor) -> Side:
    from lablib.layers import ClipNorm
    from lablib.privacy import CliplessEngine, CrossEntropy

    module = nn.Sequential(ClipNorm(INPUT_BOUND), *module)
    module, optimizer, criterion, loader = CliplessEngine().make_private(
        module=module,
        optimizer=_sgd(module),
        criterion=CrossEntropy(temperature=1.0),
        data_loader=_loader(x, y),
        noise_multiplier=NOISE,
    )
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # rate 1: every batch holds all samples
    return Side(lambda: tuple(next(batches)), _training(module, optimizer, criterion))


def _loader(x: Tensor, y: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(x, y), batch_size=len(x))


_PREPARE = {
    CLIPLESS: _clipless,
    PLAIN: _plain,
    PER_SAMPLE: _opacus("hooks"),
    GHOST: _opacus("ghost"),
}
