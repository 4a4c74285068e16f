"""What breaks the data contract, gathered with its rows, and said in one line."""

from collections import Counter
from collections.abc import Callable, Iterable

from infra.errors import BadInput

SHOWN_ROWS = 5
GIVE_UP_AFTER = 1_000  # a source with this many broken rows has been understood
SHOWN_CHARACTERS = 40


class Violations:
    """Counts every violation, remembers the first rows of each kind, and raises one BadInput for all of them."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._rows: dict[str, list[str]] = {}
        self._cures: dict[str, str] = {}

    def add(self, what: str, places: Iterable[str], count: int, cure: str) -> None:
        """`count` more rows of this kind. Places are only asked for as far as they are shown. Raises BadInput when there are too many already."""
        self._counts[what] += count
        self._cures.setdefault(what, cure)
        shown = self._rows.setdefault(what, [])
        for place in places:
            if len(shown) >= SHOWN_ROWS:
                break
            shown.append(place)
        if self._counts.total() >= GIVE_UP_AFTER:
            self.check(so_far=True)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def check(self, so_far: bool = False) -> None:
        """Raise BadInput if the contract is broken; the kind that was seen first leads."""
        if not self._counts:
            return
        said = [self._say(what) for what in self._counts]
        total = self._counts.total()
        head = f"{total}{' or more' if so_far else ''} rows break the data contract: " if total > 1 else ""
        raise BadInput(f"{head}{'; '.join(said)}. {' '.join(dict.fromkeys(self._cures.values()))}")

    def _say(self, what: str) -> str:
        shown = self._rows[what]
        more = self._counts[what] - len(shown)
        return f"{', '.join(shown)}{f' and {more} more' if more > 0 else ''}: {what}"


def shown(value: object) -> str:
    """A value as an error may show it: quoted, short, on one line."""
    text = str(value)
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")


def place_of(names: list[str]) -> Callable[[int, int], str]:
    """How a row is named: by its file, unless there is but one, and its number."""
    if len(names) == 1:
        return lambda file, row: f"{names[0]}, row {row}"
    return lambda file, row: f"{names[file]}, row {row}"
