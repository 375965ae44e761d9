"""A bar over a long loop, where tqdm is installed and wanted."""

from collections.abc import Iterable, Sequence


def bar(items: Sequence, title: str, wanted: bool) -> Iterable:
    """Return ``items``, shown as a bar on stderr if ``wanted``; a file or a pipe gets no bar."""
    if wanted:
        try:
            from tqdm import tqdm
        except ModuleNotFoundError:
            return items
        return tqdm(items, desc=title, disable=None, leave=False)
    return items
