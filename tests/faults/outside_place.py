"""What `tests.faults.outside` needs of a place: a real server behind a line, somebody else who interferes, and a judge who asks it directly.

A judge shares no code with what it judges; only rivals do, since they are the product too.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tests.faults.line import Line


class Place(ABC):
    """One server behind a line."""

    scenes: ClassVar[Sequence[str]]
    has_rivals: ClassVar[bool]  # else a twin: the same work, asked for elsewhere at the same moment
    line: Line

    @abstractmethod
    def environment(self, *, calm: bool) -> dict[str, str]:
        """What leads a run there: over the line, or straight."""

    @abstractmethod
    def begin(self, scene: str, name: str) -> list[str]:
        """What is there when a case begins; what has been told by then."""

    def job(self, scene: str, name: str) -> dict[str, Any]:
        """What else a run is told."""
        return {}

    def rival(self, name: str) -> list[str]:
        """Somebody else does something just before a call; what he tells."""
        raise NotImplementedError

    @abstractmethod
    def harm(self, scene: str, name: str, told: Sequence[str], state: str) -> list[str]:
        """What must never be, after each attempt."""

    @abstractmethod
    def unfinished(self, scene: str, name: str, told: Sequence[str]) -> list[str]:
        """What isn't as it must be at the end."""

    @abstractmethod
    def clean(self, scene: str, name: str) -> None:
        """Nothing of the case is left."""
