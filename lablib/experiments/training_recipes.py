"""The training recipes by name: the three sizes of each, side by side.

``full`` is the table of the SortNet paper (arXiv 2210.01787, appendix) and its public scripts; where the public
code reads a real p on a GPU, so does ``full``. ``standard`` fits two CPU cores, ``quick`` takes seconds.
"""

import dataclasses

from lablib.experiments.results import MODES
from lablib.experiments.training_config import Config, Data, Exponent, Loss, Model, Optim


def _full(
    data: Data, *, keep: float, lam: tuple[float, float], eps: float, loss_eps: float, hybrid: bool = False
) -> Config:
    mnist = data.name == "mnist"
    epochs, begin, end = (1500, 100.0, 1450.0) if mnist else (3000, 200.0, 2950.0)
    depth = 7 if hybrid else 5 if mnist else 6
    model = Model("hybrid" if hybrid else "mlp", 5120, depth, keep, identity=10.0 if mnist else None)
    ramp = 500.0 if hybrid else 0.0
    loss = Loss("ce_hinge" if hybrid else "mixture", loss_eps, ramp, *lam)
    p = Exponent(begin=begin, end=end, grid="real")
    return Config(model, data, loss, Optim(epochs=epochs), p, eps, 50, 2048, 1000)


def _shorter(config: Config, model: Model, epochs: int, data: Data | None = None, **loss) -> Config:
    """The same recipe with a smaller model and fewer epochs, its milestones moved along."""
    ratio = epochs / config.optim.epochs
    begin, end = max(1.0, round(config.p.begin * ratio)), min(epochs - 1.0, round(config.p.end * ratio))
    settings = {"eps_end": round(config.loss.eps_end * ratio)} | loss
    return dataclasses.replace(
        config,
        model=model,
        data=data or dataclasses.replace(config.data, held_out=1000),
        loss=dataclasses.replace(config.loss, **settings),
        optim=dataclasses.replace(config.optim, epochs=epochs),
        p=dataclasses.replace(config.p, begin=begin, end=end, grid="powers"),
        evaluate=5,
        evaluate_rows=1000,
        attack_rows=200,
    )


_MNIST, _CIFAR = Data("mnist", pad=1), Data("cifar10", pad=3, flip=True)
_FEW_MNIST = Data("mnist", train=2000, test=1000, held_out=200, pad=1)
_FEW_CIFAR = Data("cifar10", train=2000, test=1000, held_out=200, pad=3, flip=True)
_DIGITS = Data("digits", held_out=200, pad=0)


def _mnist(
    keep: float,
    lam: tuple[float, float],
    eps: float,
    loss_eps: float,
    *,
    small_keep: float,
    small_loss_eps: float,
) -> dict[str, Config]:
    full = _full(_MNIST, keep=keep, lam=lam, eps=eps, loss_eps=loss_eps)
    tiny = Model("mlp", 128, 3, 0.9)
    standard = _shorter(
        full, Model("mlp", 512, 4, small_keep), 60, eps=small_loss_eps, lam=0.1, lam_end=0.001
    )
    return {
        "quick": _quick(_shorter(full, tiny, 12, _FEW_MNIST, eps=0.2, lam=1.0, lam_end=0.05)),
        "standard": _small_steps(dataclasses.replace(standard, evaluate=10)),
        "full": full,
    }


def _small_steps(config: Config) -> Config:
    """Few epochs need many steps, and large ones: a quarter of the batch, three times the rate."""
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch=128, lr=0.06))


def _cifar(
    keep: float, lam: tuple[float, float], eps: float, loss_eps: float, hybrid=False
) -> dict[str, Config]:
    full = _full(_CIFAR, keep=keep, lam=lam, eps=eps, loss_eps=loss_eps, hybrid=hybrid)
    kind, depth = ("hybrid", 5) if hybrid else ("mlp", 4)
    small = Model(kind, 512, depth, keep, hidden=256)
    tiny = Model(kind, 128, depth, keep, hidden=64)
    return {
        "quick": _quick(_shorter(full, tiny, 5, _FEW_CIFAR)),
        "standard": _small_steps(_shorter(full, small, 40)),
        "full": full,
    }


def _quick(config: Config) -> Config:
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, batch=64), attack_rows=100)


def _digits() -> dict[str, Config]:
    config = Config(
        Model("mlp", 128, 3, 0.8),
        _DIGITS,
        Loss(eps=0.1, lam=0.5, lam_end=0.05),
        Optim(epochs=60, batch=64),
        Exponent(begin=3.0, end=55.0),
        eps=0.1,
        evaluate=20,
    )
    wide = dataclasses.replace(config, model=dataclasses.replace(config.model, width=256, depth=4))
    full = dataclasses.replace(wide, data=dataclasses.replace(_DIGITS, held_out=0))
    return {"quick": config, "standard": wide, "full": full}


def _baseline(
    kind: str,
    *,
    keep: float = 0.7,
    lr: float = 0.01,
    loss: Loss | None = None,
    ramp: float = 0.0,
    batches: int = 1,
) -> dict[str, Config]:
    """MNIST at 0.1 as SortNet is trained for it, another network; at standard size a third of the epochs.

    ``ramp``: share of the epochs in which the radius of ``loss`` grows; ``batches``: times the batch of SortNet.
    """
    sortnet = RECIPES["sortnet-mnist-0.1"]
    small = sortnet["standard"].model
    sortnet = sortnet | {"standard": _small_steps(_shorter(sortnet["full"], small, 20, eps=0.2))}

    def size(mode: str) -> Config:
        base = sortnet[mode]
        model = dataclasses.replace(base.model, kind=kind, keep=keep)
        if kind != "mlp":
            model = dataclasses.replace(model, width=min(base.model.width, 1024), identity=None)
            optim = dataclasses.replace(base.optim, lr=lr, batch=batches * base.optim.batch)
            base = dataclasses.replace(base, optim=optim)
        chosen = base.loss if loss is None else dataclasses.replace(loss, eps_end=ramp * base.optim.epochs)
        return dataclasses.replace(base, model=model, loss=chosen)

    return {mode: size(mode) for mode in MODES}


def _linear(activation: str) -> dict[str, Config]:
    """Linear layers in linf: much cross entropy at first, or they tend to stay at the few classes certified first.

    A projection costs per step, not per sample: large batches.
    """
    return _baseline(activation, lr=0.02, loss=Loss(eps=0.2, lam=1.0, lam_end=0.01), batches=2)


RECIPES: dict[str, dict[str, Config]] = {
    "sortnet-digits": _digits(),
    "sortnet-mnist-0.1": _mnist(0.70, (0.1, 0.001), 0.1, 0.3, small_keep=0.8, small_loss_eps=0.2),
    "sortnet-mnist-0.3": _mnist(0.75, (0.02, 0.0002), 0.3, 0.45, small_keep=0.7, small_loss_eps=0.4),
    "sortnet-cifar10-2": _cifar(0.75, (1.0, 0.01), 2 / 255, 0.03137),
    "sortnet-cifar10-8": _cifar(0.85, (0.2, 0.002), 8 / 255, 0.09411),
    "sortnet-cifar10-2-mlp": _cifar(0.70, (1.0, 0.01), 2 / 255, 0.008627, hybrid=True),
    "sortnet-cifar10-8-mlp": _cifar(0.60, (1.0, 0.01), 8 / 255, 0.03451, hybrid=True),
}
RECIPES |= {
    "groupsort-mnist": _linear("groupsort"),
    "linf-mnist": _linear("abs"),
    "linfdist-mnist": _baseline("mlp", keep=1.0),
    "ibp-mnist": _baseline("ibp", lr=0.001, loss=Loss("worst_case", eps=0.1, lam=1.0, lam_end=0.5), ramp=0.5),
}


def recipe_config(name: str, mode: str) -> Config:
    """Return the settings of a recipe at one size.

    Raises:
        ValueError: if there is no such recipe or size; the message lists those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"no training recipe {name!r}; choose from: {', '.join(RECIPES)}")
    if mode not in MODES:
        raise ValueError(f"no size {mode!r}; choose from: {', '.join(MODES)}")
    return RECIPES[name][mode]
