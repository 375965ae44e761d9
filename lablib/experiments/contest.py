"""What ``lablib bench`` compares."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Contest:
    """One comparison: what, our code and the peer's, made ready by ``prepare() -> (ours, peer)``.

    ``instructions``: how many vector instructions our code cannot do without, where that has been counted.
    """

    name: str
    peer: str
    prepare: Callable[[], tuple[Callable[[], object], Callable[[], object]]]
    instructions: float | None = None
