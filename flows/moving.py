"""What a person's move comes down to: from which promotion to which revision, and with which run config the Space is asked. Starts nothing."""

from typing import Any

from pydantic import ValidationError

from flows.config_files import explain
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.hub.client import HubClient
from infra.hub.live import read_main
from infra.hub.promotions import candidate_record, live_promotion, previous_promotion, promotion_at, taken_back
from infra.hub.references import find_revision, split_reference
from infra.revisions import DatasetRevision, Frozen, ModelRevision
from tasks.publish_candidate import CONFIG_FILE
from tasks.train_model import TrainConfig

MOVE_KEY = "move"
RECIPE_FIELDS = ("recipe", "base_model", "args", "seed", "dtype", "threads")
_BEGIN, _END = "```json\n", "\n```"


class Move(Frozen):
    """To what, and instead of what."""

    revision: ModelRevision
    instead_of: ModelRevision


def resolve_move(back: bool, reference: str, instead_of: str | None, hub: HubClient) -> Move:
    """The revisions that a person means. A bare model repo: what was live before the present one. Raises BadInput before anything is started."""
    repo, ref = split_reference(reference)
    if repo.repo_type != "model":
        raise BadInput(f"{reference} is a {repo.repo_type}; what is moved is a model, and its Space follows. Name a revision of the model.")
    seen = ModelRevision.parse(instead_of) if instead_of else _seen(hub, reference)
    if ref is None:
        if not back:
            raise BadInput(f"{reference} names no revision. Write {repo.repo_id}@SHA; `spaceport status` lists what there is.")
        return Move(revision=previous_promotion(hub, repo).revision, instead_of=seen)
    found = ModelRevision.parse(str(find_revision(hub, reference)))
    promotion = promotion_at(hub, found)
    if back and promotion is None:
        raise BadInput(f"{found} was never live, so there is no way back to it. `spaceport promote {found}` makes it live.")
    if back and promotion:
        taken_back(hub, promotion)  # raises where this repo was never there
    if not back and candidate_record(hub, found) is None:
        raise BadInput(f"{found} carries no step record, so what belongs to it isn't known. Name a candidate or a promoted revision.")
    return Move(revision=promotion.revision if promotion else found, instead_of=seen)


def run_config_of(move: Move, config: RunConfig | None, hub: HubClient) -> RunConfig | None:
    """The run config that names the Space: the one that was given, else the one that the live revision, or the target, carries on the Hub."""
    if config:
        if config.model.repo_id != move.revision.repo_id:
            raise BadInput(f"the run config is of {config.model.repo_id}, and {move.revision.repo_id} is to be moved. Name the config of that model.")
        return config
    for revision in (move.instead_of, move.revision):
        told = hub.read_json(revision, CONFIG_FILE)
        if told is not None:
            return _from_hub(told, revision)
    return None


def serving_config(move: Move, config: RunConfig, hub: HubClient) -> RunConfig:
    """The config that the target's own answers are worked out with: its own arguments where it came from a recipe, else the given config's.

    What another version of ours wrote there and this one can't read stops no rollback: the given config stands in.
    """
    told = hub.read_json(move.revision, CONFIG_FILE)
    own = told.get("train") if isinstance(told, dict) else None
    if not isinstance(own, dict) or not own.get("recipe"):
        return config
    try:
        return config.model_copy(update={"train": _recipe(own, move.revision)})
    except BadInput:
        return config


def served_dataset(move: Move, hub: HubClient) -> DatasetRevision:
    """The dataset that the target was made from: its test rows are the proof."""
    record = candidate_record(hub, move.revision)
    if record is None or not isinstance(record.outputs.get("dataset"), str):
        raise BadInput(f"{move.revision} doesn't say from which dataset it was made, so its Space can't be proved.")
    return DatasetRevision.parse(str(record.outputs["dataset"]))


def render_move(move: Move, back: bool) -> str:
    """The move for the run page; the same as JSON, for a retry."""
    said = f"{'Back' if back else 'Forward'} to `{move.revision}`, instead of `{move.instead_of}`."
    return f"{said}\n\n{_BEGIN}{move.model_dump_json(indent=1)}{_END}\n"


def parse_move(markdown: str) -> Move:
    """Read a move back."""
    return Move.model_validate_json(markdown[markdown.index(_BEGIN) + len(_BEGIN) : markdown.rindex(_END)])


def _seen(hub: HubClient, reference: str) -> ModelRevision:
    """What main holds now: a promotion's own commit, or whatever is there."""
    repo, _ = split_reference(reference)
    live = live_promotion(hub, repo)
    if live:
        return live.revision
    main = read_main(hub, repo)
    if main is None:
        raise BadInput(f"{repo} is not on {hub.endpoint}, or this token can't see it. Check the name.")
    return main.revision


def _from_hub(told: Any, revision: ModelRevision) -> RunConfig:
    """A config that lies on the Hub. It may name a recipe of ours; a command in it is nobody's word here, so it isn't run."""
    train = told.get("train") if isinstance(told, dict) else None
    if not isinstance(train, dict) or not train.get("recipe"):
        raise BadInput(f"{revision} was trained by a command of your own, and no command out of a model repo is run. Name the run config's file too.")
    recipe = _recipe(train, revision).model_dump(mode="json")
    try:
        return RunConfig.model_validate({**told, "train": recipe})
    except ValidationError as error:
        raise BadInput(f"the run config in {revision} is of another version ({explain(error)}). Name a run config file.") from None


def _recipe(told: dict[str, Any], revision: ModelRevision) -> TrainConfig:
    """A recipe and its arguments, without what reaches into the machine (secrets, folders) and without limits that only a training needs."""
    try:
        return TrainConfig.model_validate({name: told[name] for name in RECIPE_FIELDS if name in told})
    except ValidationError as error:
        raise BadInput(f"the training section in {revision} is of another version ({explain(error)}). Name a run config file.") from None
