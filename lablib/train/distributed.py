"""One process of many: set up by torchrun's environment variables, or alone."""

import contextlib
import dataclasses
import datetime
import inspect
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

TIMEOUT = datetime.timedelta(minutes=10)


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where this process stands among those that train together.

    Attributes:
        rank, world: its number, and how many there are.
        device: what it computes on.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files and shows progress."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return ``model``, in several processes with gradients averaged over them."""
        if self.world == 1:
            return model
        # running means are equal on all ranks already, as they come from sums over them
        known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
        name = (
            "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        )  # torch < 2.13
        return nn.parallel.DistributedDataParallel(model, **{name: False})

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of ``values`` over the processes."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether ``flag`` is set in one of the processes. All of them must ask."""
        return flag if self.world == 1 else bool(self.total(torch.tensor(float(flag), device=self.device)))


@contextlib.contextmanager
def ranks(device: str) -> Iterator[Ranks]:
    """Join the other processes of ``torchrun`` for the block, gloo on CPU and nccl on CUDA; alone without it.

    Args:
        device: "cpu" or "cuda"; with torchrun each process takes the GPU of its local rank.

    Raises:
        ValueError: for a device that this machine does not have.
    """
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device is cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("there is no CUDA device here; use --device cpu")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1, torch.device(device))
        return
    chosen = torch.device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(torch.distributed.get_rank(), world, chosen)
    finally:
        torch.distributed.destroy_process_group()
