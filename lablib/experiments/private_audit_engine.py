"""The same audit of the engine itself: real private runs, one by one, scored as the simulated ones."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lablib.experiments.private_audit_cases import Case
from lablib.experiments.private_audit_models import (
    SUBJECTS,
    Record,
    claimed_sensitivity,
    criterion,
    gradients,
    quiet,
    trained,
)
from lablib.experiments.private_audit_simulator import current_bounds, noise_levels, score_step
from lablib.privacy.engine import CliplessEngine

Step = tuple[dict[str, Tensor], dict[str, Tensor]]  # weights before it, and the noisy sum that it releases


def data_set(case: Case, canary: Record, other: Record, present: bool) -> TensorDataset:
    """Return N copies of ``other`` and the canary, or in its place a record without gradient.

    The engine takes the number of records as public, from which the sample rate follows; so a record that adds
    nothing stands for none.
    """
    last = canary if present else quiet(SUBJECTS[case.subject].build(), canary)
    records = [other] * case.setting.others + [last]
    return TensorDataset(torch.cat([r.x for r in records]), torch.cat([r.y for r in records]))


def engine_run(case: Case, data: TensorDataset, seed: int | None) -> tuple[list[Step], dict[str, Tensor]]:
    """Train once by the engine; return every step, as an attacker inside it sees it, and the last weights.

    What is noted is the noisy sum itself, before the projection of the weights, which only processes it.
    """
    setting, subject = case.setting, SUBJECTS[case.subject]
    module = subject.build()
    total = math.hypot(*claimed_sensitivity(subject, module).values())
    inner = torch.optim.SGD(trained(module).values(), lr=setting.learning_rate(total))
    private, optimiser, loss, loader = CliplessEngine(seed=seed).make_private(
        module=module,
        optimizer=inner,
        criterion=criterion(),
        data_loader=DataLoader(data, batch_size=round(setting.expected)),
        noise_multiplier=setting.noise_multiplier,
        noise=setting.noise,
        constraint=case.constraint,
        max_physical_batch=case.micro,
    )
    steps: list[Step] = []

    def note(*_: object) -> None:
        own = trained(module)
        before = {name: value.detach().clone() for name, value in own.items()}
        steps.append((before, {name: value.grad * setting.expected for name, value in own.items()}))

    inner.register_step_pre_hook(note)
    while True:
        for x, y in loader:
            loss(private(x), y).backward()
            optimiser.step()
            if len(steps) == setting.steps:
                return steps, trained(module)


def run_engine(case: Case, canary: Record, other: Record, runs: int, seed: int) -> list[np.ndarray]:
    """Return scores (R,) without and with the canary, of ``runs`` runs of the engine each."""
    groups = []
    for present in (False, True):
        data = data_set(case, canary, other, present)
        seeds = np.random.SeedSequence([seed, int(present)]).generate_state(runs)
        groups.append(_scores(case, canary, other, (engine_run(case, data, int(s))[0] for s in seeds)))
    return groups


def _scores(case: Case, canary: Record, other: Record, runs: Iterator[list[Step]]) -> np.ndarray:
    subject = SUBJECTS[case.subject]
    module = subject.build()
    start = {name: value.detach() for name, value in trained(module).items()}
    claimed = claimed_sensitivity(subject, module)
    sizes = {name: value.numel() for name, value in start.items()}
    scores = torch.zeros(())
    for step, seen in enumerate(zip(*runs, strict=True)):
        weights, released = (
            {name: torch.stack([run[k][name] for run in seen]) for name in start} for k in (0, 1)
        )
        levels = noise_levels(case.setting, current_bounds(subject, claimed, start, weights), sizes)
        own, known = gradients(module, weights, canary), gradients(module, weights, other)
        scores = scores + score_step(case.setting, step, released, levels, own, known)
    return scores.numpy()
