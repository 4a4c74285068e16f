"""Which checks a run needs: only those of steps that would do something."""

from flows.lineage import base_revision, resolved_config
from flows.planning import Plan, plan_run
from flows.run_config import RunConfig
from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.revisions import Repo
from infra.settings import Settings
from tasks.check import (
    CheckReport,
    Finding,
    check_base_model,
    check_machine,
    check_space_token,
    check_token,
    check_write_access,
    probe,
    safetensors_bytes,
)
from tasks.data.sample import sample_check
from tasks.data_register import DataConfig
from tasks.train_model import Columns, train_inputs


def check_run(config: RunConfig, hub: HubClient) -> CheckReport:
    """Look at everything that the run would need. Never raises for what it finds; what would be reused isn't looked at."""
    config = resolved_config(config)
    token = probe("token", lambda: check_token(hub))
    if not token.passed:
        return CheckReport(findings=(token,))
    try:
        plan = plan_run(config, hub)
    except SpaceportError as error:
        return CheckReport(findings=(token, Finding(name="inputs", passed=False, message=str(error), kind=error.kind)))
    return CheckReport(findings=(token, *_findings_of(plan, config, hub)))


def _findings_of(plan: Plan, config: RunConfig, hub: HubClient) -> list[Finding]:
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
    if config.space and "refresh_space" in busy:
        space = Repo(repo_type="space", repo_id=config.space.repo_id)
        findings.append(probe("space token", lambda: check_space_token(space, model, config.model.visibility, Settings().space_token, hub)))
    return findings


def _training_findings(config: RunConfig, hub: HubClient) -> list[Finding]:
    findings = [probe("script", lambda: _script(config))]
    base = base_revision(config, hub)
    if base:
        findings.append(probe("base model", lambda: check_base_model(base, hub)))
        if config.target == "process" and findings[-1].passed:
            findings.append(probe("machine", lambda: check_machine(safetensors_bytes(base, hub), Settings().home)))
    return findings


def _data(config: DataConfig, hub: HubClient) -> str:
    sample = sample_check(config, hub)
    return f"{'all' if sample.whole else 'the first'} {sample.rows:,} rows of {sample.files} file(s) keep the contract"


def _script(config: RunConfig) -> str:
    inputs = train_inputs(config.train, "", None, Columns())
    return f"recipe {config.train.recipe}" if config.train.recipe else f"{len(inputs['code'])} files of code"  # type: ignore[arg-type]
