"""Ctrl-C and SIGTERM as a wish to stop at the next step, not in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Wish:
    """Set by the first signal. Attributes: ``signal``, its number, 0 as long as there is none."""

    signal = 0


@contextlib.contextmanager
def wish_to_stop() -> Iterator[Wish]:
    """Note SIGINT and SIGTERM inside the block; a second SIGINT stops at once, by KeyboardInterrupt.

    Outside the main thread, where no handler can be set, signals do what they did before.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def note(number: int, frame: object) -> None:
        if wish.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        wish.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
