"""What a run would do: which step runs or is reused, which input changed, the commits to make, minutes and price. Asks the ledger, starts nothing."""

from typing import Literal

from pydantic import Field, computed_field

from flows.estimating import Estimate, estimate_training
from flows.lineage import base_revision, columns_of, dataset_revision, resolved_config, training_record
from flows.run_config import RunConfig
from infra.hub.client import HubClient
from infra.hub.inference_endpoint import InferenceEndpoint
from infra.hub.ledger import Ledger, Published
from infra.hub.live import Main, promoted_candidate, read_main
from infra.hub.step_records import StepRecord, changed_inputs
from infra.revisions import DatasetRevision, Frozen, ModelRevision, Repo
from infra.settings import Settings
from tasks.data_register import data_record, look_up
from tasks.gate import settled
from tasks.gate_statistics import Decision
from tasks.outcomes import RunOutcome, StepName
from tasks.refresh_endpoint import endpoint_record, is_served
from tasks.refresh_space import space_record
from tasks.report import Live, RunReport, StepReport
from tasks.serving_probe import split_rows

Action = Literal["run", "reuse", "skip", "depends"]
SHOWN_INPUTS = 6
OUTCOMES: dict[Decision, RunOutcome] = {"promote": "unchanged", "keep": "kept", "undecided": "undecided"}


class PlannedStep(Frozen):
    """What one step would do, and why."""

    name: StepName
    action: Action
    why: str
    changed: tuple[str, ...] = ()
    key: str | None = None
    revision: str | None = None
    commits: int = 0


class Plan(Frozen):
    """What a run would do now."""

    steps: tuple[PlannedStep, ...]
    resolved: dict[str, str | int] = Field(default_factory=dict)  # what the run will hold on to, whatever machine it meets
    training: Estimate | None = None  # None: nothing to train
    decision: Decision = "promote"  # the gate's, where it is known already

    @computed_field  # type: ignore[prop-decorator]
    @property
    def changes(self) -> bool:
        """Whether a run would do anything at all."""
        return any(step.action in {"run", "depends"} for step in self.steps)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def commits(self) -> int:
        """Commits that the run would make at most."""
        return sum(step.commits for step in self.steps)

    def report(self, live: Live) -> RunReport:
        """The report of the run that there is no need to start."""
        steps = tuple(
            StepReport(name=step.name, outcome="skipped" if step.action == "skip" else "reused", revision=step.revision, key=step.key) for step in self.steps
        )
        return RunReport(outcome=OUTCOMES[self.decision], steps=steps, live=live)


def plan_run(config: RunConfig, hub: HubClient) -> Plan:
    """The plan of a run config. Raises BadInput for what would stop the run at once."""
    config = resolved_config(config)
    resolved: dict[str, str | int] = {"train.dtype": config.train.dtype, "train.threads": config.train.threads}
    data, dataset = _plan_data(config, hub)
    if dataset is None:
        steps = (data, *_all_depend(config, "on the new dataset"))
        return Plan(steps=steps, resolved=resolved, training=estimate_training(config, None, hub))
    train, candidate = _plan_training(config, dataset, hub)
    if candidate is None:
        steps = (data, train, *_all_depend(config, "on the new candidate")[1:])
        return Plan(steps=steps, resolved=resolved, training=estimate_training(config, dataset, hub))
    pointers, decision = _plan_pointers(config, dataset, candidate, hub)
    return Plan(steps=(data, train, *pointers), resolved=resolved, decision=decision)


def _plan_data(config: RunConfig, hub: HubClient) -> tuple[PlannedStep, DatasetRevision | None]:
    if config.data is None:
        dataset = dataset_revision(config, hub)
        return PlannedStep(name="data_register", action="skip", why="the config names a dataset revision", revision=str(dataset)), dataset
    record = data_record(config.data, hub, Settings().work("data"))
    found = look_up(config.data, hub, record)
    if found:
        return _reused("data_register", found), DatasetRevision(repo_id=found.revision.repo_id, sha=found.revision.sha)
    return _to_run("data_register", record, Ledger(hub).head(Repo(repo_type="dataset", repo_id=config.data.repo_id))), None


def _plan_training(config: RunConfig, dataset: DatasetRevision, hub: HubClient) -> tuple[PlannedStep, ModelRevision | None]:
    repo = Repo(repo_type="model", repo_id=config.model.repo_id)
    record = training_record(config, dataset, columns_of(config, dataset, hub), base_revision(config, hub), hub)
    found = Ledger(hub).find(repo, record.key)
    if found:
        return _reused("train_model", found), ModelRevision(repo_id=repo.repo_id, sha=found.revision.sha)
    main = read_main(hub, repo)
    live = promoted_candidate(main.record) if main else None
    before = Ledger(hub).record_at(live) if live else None
    return _to_run("train_model", record, Published(live, "reused", before) if live and before else None), None


def _plan_pointers(config: RunConfig, dataset: DatasetRevision, candidate: ModelRevision, hub: HubClient) -> tuple[list[PlannedStep], Decision]:
    main = read_main(hub, candidate.repo)
    if main is None or main.record is None or promoted_candidate(main.record) != candidate:
        return _plan_gate(config, dataset, candidate, main, hub)
    made = Ledger(hub).find_in_history(candidate.repo, main.record.key)
    model = ModelRevision(repo_id=candidate.repo_id, sha=made.revision.sha if made else main.revision.sha)
    steps = [
        PlannedStep(name="gate", action="reuse", why="this candidate is live", revision=str(candidate), key=str(main.record.outputs.get("verdict"))),
        PlannedStep(name="promote_model", action="reuse", why="main holds it", revision=str(model), key=main.record.key),
    ]
    return [*steps, _plan_space(config, dataset, model, hub), *_plan_endpoint(config, model, hub)], "promote"


def _plan_gate(config: RunConfig, dataset: DatasetRevision, candidate: ModelRevision, main: Main | None, hub: HubClient) -> tuple[list[PlannedStep], Decision]:
    """A candidate that isn't live: the gate kept it out before, and will again; or it has yet to judge; or only the promotion is missing."""
    split = split_rows(dataset, columns_of(config, dataset, hub), hub)
    known = settled(candidate, main, split, config.gate, hub) if main else None
    if known is None:
        return _all_depend(config, "on the verdict")[1:], "promote"
    judged = PlannedStep(name="gate", action="reuse", why=f"judged before: {known.reason}", revision=str(candidate))
    if known.decision == "promote":
        return [judged, *_all_depend(config, "on main")[2:]], "promote"
    kept = [PlannedStep(name=name, action="skip", why=f"the gate says {known.decision}") for name in ("promote_model", "refresh_space")]
    return [judged, *kept], known.decision


def _plan_space(config: RunConfig, dataset: DatasetRevision, model: ModelRevision, hub: HubClient) -> PlannedStep:
    if config.space is None:
        return PlannedStep(name="refresh_space", action="skip", why="the config names no Space")
    record = space_record(model, config.space, hub.endpoint, dataset)
    head = Ledger(hub).head(Repo(repo_type="space", repo_id=config.space.repo_id))
    if head and head.record.key == record.key:
        return _reused("refresh_space", head)
    return _to_run("refresh_space", record, head)


def _plan_endpoint(config: RunConfig, model: ModelRevision, hub: HubClient) -> list[PlannedStep]:
    if config.endpoint is None:
        return []
    state, key = InferenceEndpoint(hub, config.endpoint.name).state(), endpoint_record(model, config.endpoint).key
    if is_served(state, model, config.endpoint):
        return [PlannedStep(name="refresh_endpoint", action="reuse", why="it serves this revision", key=key, revision=str(model))]
    why = "there is none yet" if state is None else f"it is {state.stage} at {state.revision[:8]}"
    return [PlannedStep(name="refresh_endpoint", action="run", why=why, key=key)]


def _all_depend(config: RunConfig, on: str) -> list[PlannedStep]:
    steps = [PlannedStep(name="train_model", action="depends", why=on, commits=1), PlannedStep(name="gate", action="depends", why=on, commits=1)]
    steps.append(PlannedStep(name="promote_model", action="depends", why=on, commits=1))
    endpoint = [PlannedStep(name="refresh_endpoint", action="depends", why=on)] if config.endpoint else []
    if config.space:
        return [*steps, PlannedStep(name="refresh_space", action="depends", why=on, commits=1), *endpoint]
    return [*steps, PlannedStep(name="refresh_space", action="skip", why="the config names no Space"), *endpoint]


def _reused(name: StepName, found: Published) -> PlannedStep:
    return PlannedStep(name=name, action="reuse", why="already there", key=found.record.key, revision=str(found.revision))


def _to_run(name: StepName, record: StepRecord, before: Published | None) -> PlannedStep:
    changed = changed_inputs(before.record.inputs, record.inputs) if before and before.record.step == record.step else []
    if changed:
        more = f" and {len(changed) - SHOWN_INPUTS} more" if len(changed) > SHOWN_INPUTS else ""
        why = f"changed: {', '.join(changed[:SHOWN_INPUTS])}{more}"
    else:
        why = "never done before" if before is None else "a new version of the step"
    return PlannedStep(name=name, action="run", why=why, changed=tuple(changed), key=record.key, commits=1)
