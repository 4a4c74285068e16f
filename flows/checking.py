"""Which checks a run needs: only those of steps that would do something."""

from flows.lineage import base_revision, columns_of, resolved_config
from flows.planning import Plan, plan_run
from flows.run_config import RunConfig
from infra.compute.pools import check_pool
from infra.compute.prices import OWN_MACHINE, check_price
from infra.compute.rented.checkpoints import private_repo
from infra.errors import BadInput, SpaceportError
from infra.hub.client import HubClient
from infra.hub.live import read_main
from infra.revisions import DatasetRevision, Repo
from infra.settings import Settings
from tasks.check import (
    CheckReport,
    Finding,
    check_base_model,
    check_machine,
    check_space_token,
    check_splits,
    check_token,
    check_write_access,
    failed,
    probe,
    safetensors_bytes,
)
from tasks.data.sample import sample_check
from tasks.data_register import DataConfig
from tasks.refresh_endpoint import check_endpoint
from tasks.training.checks import check_checkpoint_store, check_script


def check_run(config: RunConfig, hub: HubClient) -> CheckReport:
    """Look at everything that the run would need. Never raises for what it finds; what would be reused isn't looked at."""
    written, config = config, resolved_config(config)
    token = probe("token", lambda: check_token(hub))
    if not token.passed:
        return CheckReport(findings=(token,))
    try:
        plan = plan_run(config, hub)
    except SpaceportError as error:
        return CheckReport(findings=(token, failed("inputs", error)))
    return CheckReport(findings=(token, *_findings_of(plan, config, hub, is_auto=written.train.dtype == "auto")))


def _findings_of(plan: Plan, config: RunConfig, hub: HubClient, *, is_auto: bool) -> list[Finding]:
    busy = {step.name for step in plan.steps if step.action in {"run", "depends"}}
    model = Repo(repo_type="model", repo_id=config.model.repo_id)
    findings: list[Finding] = []
    for repo in config.repos:
        if {"dataset": "data_register", "model": "promote_model", "space": "refresh_space"}[repo.repo_type] in busy:
            findings.append(probe(str(repo), lambda repo=repo: check_write_access(repo, hub)))  # type: ignore[misc]
    data = config.data
    if data and "data_register" in busy:
        findings.append(probe("data", lambda: _data(data, hub)))
    if "train_model" in busy:
        findings += _training_findings(config, hub)
        if config.target != OWN_MACHINE:
            findings.append(probe("target", lambda: _target(config, is_auto=is_auto)))
    if config.space and "refresh_space" in busy:
        space = Repo(repo_type="space", repo_id=config.space.repo_id)
        findings.append(probe("space token", lambda: check_space_token(space, model, config.model.visibility, Settings().space_token, hub)))
    if config.endpoint and "refresh_endpoint" in busy:
        endpoint = config.endpoint
        findings.append(probe("endpoint", lambda: check_endpoint(endpoint, hub)))
    return findings


def _training_findings(config: RunConfig, hub: HubClient) -> list[Finding]:
    findings = [probe("script", lambda: _script(config, hub)), probe("labels", lambda: _labels(config, hub))]
    findings.append(probe("checkpoints", lambda: _checkpoints(config, hub)))
    if config.train.max_usd is not None:
        findings.append(probe("price", lambda: check_price(config.target, config.train.max_usd, hub)))
    if config.dataset:
        dataset, splits = DatasetRevision.parse(config.dataset), ["train", "test"] if config.train.recipe else ["test"]
        findings.append(probe("dataset", lambda: check_splits(dataset, splits, hub)))
    return findings + _base_findings(config, hub)


def _target(config: RunConfig, *, is_auto: bool) -> str:
    """Who serves it, and what was chosen for its hardware without a look at that."""
    said = f"{config.target}: {check_pool(config.target)}"
    chosen = f"train.dtype = auto means {config.train.dtype}, by this machine's hardware: name one where {config.target} has other"
    return f"{said}; {chosen}" if is_auto else said


def _checkpoints(config: RunConfig, hub: HubClient) -> str:
    """Where they will be kept; on a rented machine that must be a place which the next one reaches too."""
    store = Settings().checkpoint_store
    if config.target == "process" or (store and "://" in store):
        return check_checkpoint_store(Settings().checkpoints_uri)
    if store:
        raise BadInput(
            f"SPACEPORT_CHECKPOINT_STORE is the folder {store}, which no rented machine reaches. Give s3://bucket/prefix or hf://my-org/checkpoints."
        )
    repo_id = private_repo(Settings(), hub)
    check_write_access(Repo(repo_type="model", repo_id=repo_id), hub)
    return f"will be kept in hf://{repo_id}"


def _base_findings(config: RunConfig, hub: HubClient) -> list[Finding]:
    try:
        base = base_revision(config, hub)
    except SpaceportError as error:
        return [failed("base model", error)]
    if base is None:
        return []
    findings = [probe("base model", lambda: check_base_model(base, hub))]
    if config.target == "process" and findings[-1].passed:
        findings.append(probe("machine", lambda: check_machine(safetensors_bytes(base, hub), Settings().home)))
    return findings


def _data(config: DataConfig, hub: HubClient) -> str:
    sample = sample_check(config, hub)
    return f"{'all' if sample.whole else 'the first'} {sample.rows:,} rows of {sample.files} file(s) keep the contract"


def _script(config: RunConfig, hub: HubClient) -> str:
    """What would run; a script whose models can't be asked for answers is told of before it has trained one."""
    said = check_script(config.train)
    if config.train.recipe:
        return said
    if config.train.predict:
        return f"{said}; the Space's app loads what transformers saved" if config.space and config.space.template == "gradio" else said
    if config.space:
        raise BadInput("train.predict.command is missing: the Space is proved by the answers of the model's files. Add it, or leave space out.")
    main = read_main(hub, Repo(repo_type="model", repo_id=config.model.repo_id))
    return f"{said}, so the gate will say undecided: {config.model.repo_id} holds a model to compare with" if main and main.holds_model else said


def _labels(config: RunConfig, hub: HubClient) -> str:
    """Whether what needs labels gets them."""
    label = config.data.label_column if config.data else columns_of(config, DatasetRevision.parse(str(config.dataset)), hub).label
    if label is None and config.train.recipe == "text_classification":
        raise BadInput("train.recipe text_classification learns labels, and data.label_column is none. Name the column, or bring a script of your own.")
    if label is None and config.space:
        raise BadInput("space: the app shows a score for every label, and data.label_column is none. Name the column, or leave space out.")
    return f"from column {label}" if label else "none, and none are needed"
