"""Arguments of other engines, and what stands for them here."""

from collections.abc import Iterable

INSTEAD = {
    "max_grad_norm": "is not needed: sensitivities are proven; loss_clip clips each sample's gradient at the logits",
    "clipping": "is not needed: no gradient of a parameter is clipped; loss_clip clips at the logits",
    "normalize_clipping": "is not needed: no gradient of a parameter is clipped; loss_clip clips at the logits",
    "grad_sample_mode": "is not needed: no per-sample gradients are made; leave it out",
    "loss_reduction": "is fixed: the returned criterion sums losses and divides by the expected batch size",
    "poisson_sampling": "is always on: the returned loader draws each sample on its own; leave it out",
    "batch_first": "is always so: samples are along the first axis; leave it out",
    "noise_generator": "is not taken: noise is from the system's entropy; CliplessEngine(seed=...) repeats a run",
    "secure_mode": "is not offered: noise is from the system's entropy, its floating-point form is not hardened",
    "wrap_model": "is always so: train on the returned module",
    "total_steps": "follows from the epochs; leave it out",
    "sample_rate": "follows from the loader; expected_batch_size over the number of samples",
    "batch_size": "is called expected_batch_size, default that of the loader",
    "loss": "is called criterion",
    "model": "is called module",
    "epsilon": "is called target_epsilon",
    "delta": "is called target_delta",
}


def refuse_arguments(given: Iterable[str], known: Iterable[str], caller: str) -> None:
    """Refuse arguments that ``caller`` does not know, with what to use instead.

    Raises:
        TypeError: naming the first.
    """
    known = tuple(known)
    for name in given:
        if name not in known:
            reason = INSTEAD.get(name, f"is no argument of {caller}; it takes {', '.join(known)}")
            raise TypeError(f"{name} {reason}")
