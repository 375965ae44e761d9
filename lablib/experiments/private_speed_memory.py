"""Peak memory of a training step, and the largest batch whose step stays below a limit.

On the CPU every measurement has a process of its own, forked from a server that has imported all and computed
nothing: the largest resident size during two steps, less the resident size after two warm-up steps on a batch of
two (libraries loaded, weights and momentum there). Kernel scratch space and what the allocator keeps are counted, as
they are in real life. On CUDA it is ``max_memory_allocated`` less what was allocated before the batch was made.
"""

import contextlib
import math
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lablib.experiments.private_speed_sides import prepare

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
WARM_UP = 2  # samples
TRIES = 8


def peak_memory(method: str, network: str, batch_size: int, device: str = "cpu", threads: int = 1) -> int:
    """Return the bytes that training steps with this batch take at most, above those of an idle trainer.

    Raises:
        ValueError: as :func:`~lablib.experiments.private_speed_sides.prepare`, or if the process was killed, as it
            is where the memory of the machine does not suffice.
    """
    if device != "cpu":
        return _peak_on_card(method, network, batch_size, device)
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    if sys.platform == "linux":
        context.set_forkserver_preload([__name__, "opacus", "lablib.privacy"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_answer, args=(sender, method, network, batch_size, threads), daemon=True
    )
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        raise ValueError(
            f"{method}, batch {batch_size}: the process was killed; take a smaller batch"
        ) from None
    finally:
        process.join()
        receiver.close()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _answer(sender: Any, method: str, network: str, batch_size: int, threads: int) -> None:
    """Run in the other process: send the peak, or what went wrong."""
    try:
        torch.set_num_threads(threads)
        sender.send(_peak_here(method, network, batch_size))
    except Exception as error:
        sender.send(error)


def _peak_here(method: str, network: str, batch_size: int) -> int:
    warm = prepare(method, network, WARM_UP)
    warm(), warm()
    before = _resident()
    side = prepare(method, network, batch_size)
    peak = _resident()
    for _ in range(2):
        side.draw()
        _forget_peak()
        side.step()
        peak = max(peak, _peak_resident())
    return max(0, peak - before)


def _peak_on_card(method: str, network: str, batch_size: int, device: str) -> int:
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    side = prepare(method, network, batch_size, device)
    side()  # momentum is there after it
    side.draw()
    torch.cuda.reset_peak_memory_stats(device)
    side.step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _resident() -> int:
    """Return the resident size of this process; where Linux's file is missing, the largest so far."""
    return _status("VmRSS") if STATUS.exists() else _largest_so_far()


def _peak_resident() -> int:
    return _status("VmHWM") if STATUS.exists() else _largest_so_far()


def _forget_peak() -> None:
    with contextlib.suppress(
        OSError
    ):  # not there, or not allowed: then the peak counts the making of the batch too
        RESET.write_text("5")


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _largest_so_far() -> int:
    try:
        import resource
    except ModuleNotFoundError:
        raise ValueError("memory is measured on Linux, on macOS, or on a CUDA card") from None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def largest_batch(measured: Mapping[int, int], limit: int, measure: Callable[[int], int]) -> dict[str, Any]:
    """Return the largest batch found whose measured peak is at most ``limit`` bytes, and the smallest found above it.

    Tried are the batches 3 % below and above the one that meets the limit if memory grows in proportion to the batch
    from the nearest measurement on. Nothing is extrapolated in the end: both batches were run.

    Args:
        measured: batch size -> bytes, at least one of them, to begin with.
        limit: bytes.
        measure: batch size -> bytes.

    Returns:
        ``fits`` and ``exceeds`` (batch sizes; None if none was found).

    Raises:
        ValueError: for no measurement to begin with.
    """
    if not measured:
        raise ValueError("give the peak of at least one batch size to begin the search with")
    peaks = dict(measured)
    for _ in range(TRIES):
        fits, exceeds = _bracket(peaks, limit)
        meeting = _meeting(peaks, limit)
        if (fits or 0) < int(0.97 * meeting):
            tried = int(0.97 * meeting)
        elif exceeds is None or exceeds > 1.03 * meeting + 1:
            tried = math.ceil(1.03 * meeting)
        else:
            break
        if tried in peaks:
            break
        peaks[tried] = measure(tried)
    fits, exceeds = _bracket(peaks, limit)
    return {"fits": fits, "exceeds": exceeds}


def _bracket(peaks: Mapping[int, int], limit: int) -> tuple[int | None, int | None]:
    exceeds = min((size for size, peak in peaks.items() if peak > limit), default=None)
    below = (size for size in peaks if exceeds is None or size < exceeds)
    return max(below, default=None), exceeds


def _meeting(peaks: Mapping[int, int], limit: int) -> float:
    """Return the batch size that meets ``limit`` if the peak nearest to it grows in proportion to the batch."""
    size, peak = min(peaks.items(), key=lambda each: abs(each[1] - limit))
    return size * limit / max(peak, 1)
