"""What the verbs of the command do: connect, trigger, follow, say what happened."""

import json as json_format
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from deployments.demo import CONFIG, CONFIGS_ROWS, prepare_rows, seed_base_model
from deployments.following import follow
from deployments.local_environment import Stack
from deployments.local_stack import LocalStack
from deployments.local_targets import OWN_PROCESSES
from deployments.starting import start_or_attach
from deployments.words import command_again
from flows.config_files import load_run_config
from flows.run_config import RunConfig
from infra.errors import BadInput
from infra.git_commit import git_commit
from infra.prefect_api import PrefectApi
from infra.revisions import Frozen
from infra.settings import Settings, adopt
from tasks.report import RunReport, for_programs

Answer = TypeVar("Answer", bound=Frozen)
LEFT = 130  # the exit code of Ctrl-C in every shell


def say(line: str) -> None:
    """A line for people: standard error, so that --json stays one object."""
    print(line, file=sys.stderr, flush=True)


def say_how_to_connect(local: LocalStack, stack: Stack) -> None:
    """Where the UI is and how to sign in, and what to set to use the stack from a shell."""
    settings = local.connected(stack)
    if stack.prefect_api_url:
        say(f"UI      {stack.prefect_api_url.removesuffix('/api')}   sign in with the line in {local.keys.path('prefect')}")
    if stack.hf_endpoint:
        say(f"Hub     {settings.endpoint}   any name, and the password in {local.keys.path('hub-read')}")
        say(f"shell   HF_ENDPOINT={settings.endpoint} HF_HUB_DISABLE_XET=1 HF_TOKEN=$(cat {local.keys.path('hub-write')})")


def connect(*, start: bool) -> Settings:
    """The settings to work with: the environment's, completed by the local stack, which is started if it must be."""
    local = LocalStack(say=say)
    settings = local.settings
    if settings.hf_endpoint and settings.prefect_api_url:
        return settings
    stack = local.find()
    if not stack.alive:
        if not start:
            raise BadInput("no local stack runs, and HF_ENDPOINT or PREFECT_API_URL isn't set. Start one with `spaceport up`.")
        stack = local.up()
    adopt(local.environment(stack))
    return local.connected(stack)


def run(
    files: Sequence[Path],
    flags: Mapping[str, str],
    *,
    json: bool,
    detach: bool = False,
    if_changed: bool = False,
    key: str | None = None,
    start: bool = True,
    outlives_ctrl_c: bool = True,
) -> int:
    """Trigger the pipeline and follow it to its true end. Ctrl-C leaves it, with the command that follows it again, unless its stack is about to end."""
    config = load_run_config(files, flags)
    settings = connect(start=start)
    if if_changed:
        found = _unchanged(config)
        if found:
            return ended(None, found, json)
    _have_worker(config)
    api = PrefectApi.from_settings(settings)
    parameters = {"config": config.model_dump(mode="json"), "git_commit": git_commit(files[0].resolve().parent) if files else None}
    triggered = start_or_attach(api, parameters, key or str(uuid.uuid4()), config.name, checked=True)
    if detach:
        return ended(triggered, RunReport(outcome="started"), json)
    say(f"run     {triggered['name']}   {triggered['url']}")
    try:
        report = RunReport.model_validate(follow(api, triggered["id"]))
    except KeyboardInterrupt:
        if not outlives_ctrl_c:
            raise
        say(f"\nleft; the run goes on. Follow it again: {command_again(files, flags, triggered['key'], json=json)}")
        return LEFT
    return ended(triggered, report, json)


def plan(files: Sequence[Path], flags: Mapping[str, str], *, json: bool) -> int:
    """Say what a run would do; 2 when it would do something."""
    config = load_run_config(files, flags)
    connect(start=True)
    from deployments.summary import print_plan
    from flows.planning import plan_run
    from infra.hub.client import HubClient

    found = plan_run(config, HubClient.from_settings())
    _answer(found, json, print_plan)
    return 2 if found.changes else 0


def check(files: Sequence[Path], flags: Mapping[str, str], *, json: bool) -> int:
    """Run the checks of a run and list what they found; 1 when something would fail."""
    config = load_run_config(files, flags)
    connect(start=True)
    _have_worker(config)  # what a target needs of this machine, such as KUBECONFIG, is missed now and not by the run
    from deployments.summary import print_check
    from flows.checking import check_run
    from infra.hub.client import HubClient

    found = check_run(config, HubClient.from_settings())
    _answer(found, json, print_check)
    return 0 if found.passed else 1


def demo(flags: Mapping[str, str], *, full: bool, json: bool) -> int:
    """Prepare the demo's rows and base model, run the pipeline, say what is live. A failure or Ctrl-C ends the stack that it started."""
    flags = ({"data.sample_rows": "1000000"} if full else {}) | dict(flags)
    load_run_config([CONFIG], flags)  # a mistake in a flag is said before anything is started
    local = LocalStack(say=say)
    try:
        rows = prepare_rows(local.home)
        adopt(local.environment(local.up()))
        from infra.hub.client import HubClient

        if local.find().hf_endpoint:
            seed_base_model(HubClient.from_settings())
        elsewhere = {} if rows == CONFIGS_ROWS else {"data.source": str(rows)}  # with a SPACEPORT_HOME of one's own
        code = run([CONFIG], elsewhere | flags, json=json, outlives_ctrl_c=not local.was_started_here)
    except BaseException:
        _end_what_was_started(local)
        raise
    if code == LEFT:
        return code
    if code in {0, 2}:
        say_how_to_connect(local, local.find())
        say("stop    make stop")
    else:
        _end_what_was_started(local)
    return code


def _have_worker(config: RunConfig) -> None:
    if config.target != OWN_PROCESSES:
        LocalStack(say=say).have_worker(config.target)


def _answer(found: Answer, json: bool, show: Callable[[Answer], None]) -> None:
    if json:
        print(found.model_dump_json())
    else:
        show(found)


def _end_what_was_started(local: LocalStack) -> None:
    if local.was_started_here:
        local.down()
        say(f"the local stack is ended, and what ran on it; the next run finds what is done. Logs: {local.home / 'logs'}")


def _unchanged(config: RunConfig) -> RunReport | None:
    from flows.live import what_is_live
    from flows.planning import plan_run
    from infra.hub.client import HubClient

    hub = HubClient.from_settings()
    found = plan_run(config, hub)
    return None if found.changes else found.report(what_is_live(config, hub))


def ended(flow_run: Mapping[str, str] | None, report: RunReport, json: bool) -> int:
    """Say how it ended, as one object or for people; returns the exit code."""
    if json:
        print(json_format.dumps(as_json(flow_run, report)))
    else:
        from deployments.summary import print_report

        print_report(flow_run, report)
    return report.exit_code


def as_json(flow_run: Mapping[str, str] | None, report: RunReport) -> dict[str, Any]:
    """The one object of --json. `flow_run.key` is the key that the run was started with: `spaceport run FILE --key KEY` attaches to it."""
    shown = None if flow_run is None else {name: flow_run[name] for name in ("id", "name", "url", "key")}
    return {"flow_run": shown, **for_programs(report).model_dump(mode="json", exclude={"numbers"})}
