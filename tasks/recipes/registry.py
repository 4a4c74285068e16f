"""The recipes we ship: which program, which version, and what its result depends on. No torch here."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.compute.gang import Gang
from infra.revisions import Frozen
from tasks.recipes import arguments, ranks

RecipeName = Literal["text_classification"]
# Arguments that change when a checkpoint is written or who prepares a batch, but not one bit of the result.
_NOT_IN_THE_RESULT = {"checkpoint_every_steps", "loader_workers"}


@dataclass(frozen=True)
class Recipe:
    """A training program under the script contract."""

    module: str
    version: int
    packages: tuple[str, ...]
    validate: Callable[[Mapping[str, Any]], Frozen]
    shares: Callable[[Any, int], int]

    def check(self, args: Mapping[str, Any], processes: int) -> None:
        """Raise BadInput for arguments that can't be right, alone or with so many processes."""
        self.shares(self.validate(args), processes)

    def command(self, verb: Literal["train", "predict"], processes: int = 1, gang: Gang | None = None) -> list[str]:
        """How the program is started; training may take several processes, of one machine or of each of a gang."""
        return ranks.command(sys.executable, processes, self.module, verb, gang) if verb == "train" else ranks.command(sys.executable, 1, self.module, verb)

    def arguments_that_matter(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments, defaults filled in, without those that don't touch the result."""
        return self.validate(args).model_dump(mode="json", exclude=_NOT_IN_THE_RESULT)


RECIPES: Mapping[RecipeName, Recipe] = {
    "text_classification": Recipe(
        "tasks.recipes.text_classification",
        arguments.TEXT_CLASSIFICATION_VERSION,
        arguments.TEXT_CLASSIFICATION_PACKAGES,
        arguments.validate,
        arguments.rows_at_once,
    )
}
