"""What several modules of one folder share and no other folder should pay for: a running server burns a processor even when nobody asks it."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Generic, TypeVar

import pytest

T = TypeVar("T")


class Kept(Generic[T]):
    """Made when the first test of a folder asks, ended before a test of another folder begins, made anew when one asks again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end, self._found = contextlib.ExitStack(), None

    def get(self, make: Callable[[], AbstractContextManager[T]]) -> T:
        """The one that runs; else what `make` makes."""
        if self._found is None:
            self._found = self._end.enter_context(make())
        return self._found

    def close(self) -> None:
        """End it; the next one who asks gets another."""
        self._found = None
        self._end.close()

    def close_between(self, item: pytest.Item, following: pytest.Item | None) -> None:
        """End it where the folder's tests end, for now."""
        if self._is_of_folder(item) and not self._is_of_folder(following):
            self.close()

    def _is_of_folder(self, item: pytest.Item | None) -> bool:
        return item is not None and item.path.parent == self._folder
