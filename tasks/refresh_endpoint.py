"""Make an Inference Endpoint serve a model revision, and end only when the endpoint's own answers have proved it.

The service says which revision it was asked for, not which one answers: while it updates, the older one does, and its client's `wait()` has returned in the
middle of that (huggingface_hub#2767). So rows drawn by the revision itself are asked, and their scores must be those of the revision's own files.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from infra.errors import BadInput, Conflict, RateLimited, SpaceportError, Unhealthy, UnknownOutcome
from infra.hub.client import HubClient
from infra.hub.inference_endpoint import ASLEEP, DOWN, PAUSED, UP, EndpointState, Hardware, InferenceEndpoint
from infra.hub.spaces.proof import ProbeRow
from infra.hub.step_records import StepRecord
from infra.plain_words import matching
from infra.revisions import Frozen, ModelRevision

STEP, VERSION = "refresh_endpoint", 1
SCORE_TOLERANCE = 1e-3  # another processor than ours computed them
SETTLE_SECONDS = 20.0  # so long answers may still come from the replica before
log = logging.getLogger("spaceport.refresh_endpoint")
Name = matching(r"[\w.-]{1,96}/[A-Za-z0-9-]{1,32}", "namespace/name, the name of at most 32 letters, digits and dashes,")


class EndpointConfig(Frozen):
    """The Inference Endpoint that serves the model."""

    model_config = ConfigDict(title="Inference Endpoint")

    name: Annotated[str, Name] = Field(title="Name", description="The endpoint, as in my-org/reviews.")
    vendor: str = Field("aws", title="Cloud", description="Who rents the machine: aws, azure or gcp.")
    region: str = Field("us-east-1", title="Region", description="Of the cloud.")
    accelerator: str = Field("cpu", title="Accelerator", description="cpu, gpu or neuron.")
    instance_type: str = Field("intel-spr", title="Instance type", description="As the service lists them, such as intel-spr or nvidia-l4.")
    instance_size: str = Field("x2", title="Instance size", description="As the service lists them, such as x1 or x2.")
    min_replica: int = Field(0, ge=0, title="Fewest replicas", description="0 lets it sleep, and then cost nothing.")
    max_replica: int = Field(1, ge=1, title="Most replicas", description="How many machines may answer at once.")
    scale_to_zero_minutes: int | None = Field(15, ge=1, title="Asleep after (min)", description="Without a request, where the fewest replicas are 0.")
    task: str = Field("text-classification", title="Task", description="What the service is asked to do with the model.")
    access: Literal["authenticated", "public", "private"] = Field(
        "authenticated", title="Access", description="Of an endpoint that is created now: authenticated wants a Hugging Face token."
    )
    startup_timeout_seconds: float = Field(
        1800, gt=0, allow_inf_nan=False, title="Start-up limit (s)", description="How long it may take until the old revision is put back."
    )

    @property
    def hardware(self) -> Hardware:
        """What it is to run on."""
        return Hardware(**{name: getattr(self, name) for name in Hardware.__dataclass_fields__})


class EndpointRefresh(Frozen):
    """What serves now."""

    name: str
    model: ModelRevision
    outcome: Literal["published", "reused"]
    key: str
    url: str


def refresh_endpoint(
    model: ModelRevision,
    rows: Callable[[], Sequence[ProbeRow]],
    config: EndpointConfig,
    hub: HubClient,
    *,
    poll_seconds: float = 5.0,
    settle_seconds: float = SETTLE_SECONDS,
    check: Callable[[], None] = lambda: None,
) -> EndpointRefresh:
    """Create or update the endpoint at exactly `model`, and wait for its proof. Raises Unhealthy with the old revision serving.

    `check` is called before anything is changed, and once more at the end; what it raises ends the step. `rows` are worked out, by a run of the model,
    only where they are asked for.
    """
    endpoint = InferenceEndpoint(hub, config.name)
    before = endpoint.state()
    if before and before.stage == PAUSED:
        raise Unhealthy(f"endpoint {config.name} is paused. Resume it (its page, or resume_inference_endpoint), then run again; nothing was changed.")
    check()
    done = is_served(before, model, config)
    # One that sleeps at this revision isn't woken, and paid, for another proof.
    asked = () if done and before and before.stage == ASLEEP else rows()
    if not done:
        check()  # the rows took their time
        _move(endpoint, before, model, config)
    try:
        url = _proved(endpoint, model, asked, config, poll_seconds, settle_seconds)
    except Unhealthy as failure:
        raise _put_back(endpoint, before, model, config, failure, done, poll_seconds) from failure
    check()  # whoever moved main meanwhile may have brought the endpoint there before our move
    return EndpointRefresh(name=config.name, model=model, outcome="reused" if done else "published", key=endpoint_record(model, config).key, url=url)


def endpoint_record(model: ModelRevision, config: EndpointConfig) -> StepRecord:
    """The record, and so the key, of an endpoint at a revision: for plan."""
    told = config.model_dump(mode="json", exclude={"startup_timeout_seconds", "access"})
    return StepRecord.of(STEP, VERSION, {"model": model.repo_id, "revision": model.sha, **told})


def check_endpoint(config: EndpointConfig, hub: HubClient) -> str:
    """The hardware is on the service's list, the namespace is ours, and nobody has paused it. Raises BadInput or Unhealthy."""
    endpoint, hardware = InferenceEndpoint(hub, config.name), config.hardware
    price, state = endpoint.usd_per_hour(hardware), endpoint.state()
    if price is None:
        wanted = f"{hardware.vendor} {hardware.region} {hardware.accelerator} {hardware.instance_type} {hardware.instance_size}"
        raise BadInput(f"endpoint {config.name}: the service has no {wanted}. list_inference_endpoints_hardware() shows what there is.")
    if state and state.stage == PAUSED:
        raise Unhealthy(f"endpoint {config.name} is paused. Resume it (its page, or resume_inference_endpoint).")
    return f"{config.name}, {price:g} USD per replica and hour" + (f", {state.stage}" if state else ", will be created")


def is_served(state: EndpointState | None, model: ModelRevision, config: EndpointConfig) -> bool:
    """Whether the service was asked for just this, and hasn't failed or been paused."""
    return state is not None and _is_at(state, model, config.hardware) and state.stage not in {*DOWN, PAUSED}


def _is_at(state: EndpointState, model: ModelRevision, hardware: Hardware) -> bool:
    return (state.repository, state.revision, state.hardware) == (model.repo_id, model.sha, hardware)


def _move(endpoint: InferenceEndpoint, before: EndpointState | None, model: ModelRevision, config: EndpointConfig) -> None:
    """Ask once; where the answer is lost, the endpoint itself says whether it was heard."""
    try:
        if before is None:
            endpoint.create(model, config.hardware, config.task, config.access)
        else:
            endpoint.update(model, config.hardware)
    except (Unhealthy, Conflict) as error:
        now = endpoint.state()
        if now is None or not _is_at(now, model, config.hardware):
            raise
        log.info("%s; it was done all the same", error)


def _proved(
    endpoint: InferenceEndpoint, model: ModelRevision, rows: Sequence[ProbeRow], config: EndpointConfig, poll_seconds: float, settle_seconds: float
) -> str:
    """The address, when every row is answered as the revision's own files answer it. Raises Unhealthy, or Conflict where somebody else moved it."""
    began, running_since, wrong = time.monotonic(), None, "it did not come up"
    while time.monotonic() - began < config.startup_timeout_seconds:
        state = _state_if_there(endpoint)
        if state:
            if (state.repository, state.revision) != (model.repo_id, model.sha):
                raise Conflict(f"endpoint {config.name} was moved to {state.repository}@{state.revision[:8]} by somebody else meanwhile. Run again.")
            if state.stage in DOWN or state.stage == PAUSED:
                raise Unhealthy(f"endpoint {config.name} ({state.stage}): {state.message or 'the service gives no reason'}")
            if state.url and state.stage in {UP, ASLEEP}:
                running_since = (running_since or time.monotonic()) if state.stage == UP else None
                found = _difference(endpoint, state.url, rows)
                if found is None:
                    return state.url
                wrong = found
                if running_since and time.monotonic() - running_since > settle_seconds:
                    raise Unhealthy(f"endpoint {config.name} runs, but {wrong}")
        time.sleep(poll_seconds)
    raise Unhealthy(f"endpoint {config.name}: {model} did not answer within {config.startup_timeout_seconds:.0f} s; {wrong}")


def _state_if_there(endpoint: InferenceEndpoint) -> EndpointState | None:
    try:
        return endpoint.state()
    except (Unhealthy, RateLimited) as error:  # the service is away for a moment; the time limit ends this
        log.info("%s", error)
        return None


def _difference(endpoint: InferenceEndpoint, url: str, rows: Sequence[ProbeRow]) -> str | None:
    """How the endpoint answers otherwise than the revision; None where it doesn't."""
    for row in rows:
        try:
            found = endpoint.predict(url, row.text)
        except Unhealthy as error:
            return str(error)
        if found.keys() != row.expected.keys():
            return f"its labels {sorted(found)} are not the model's {sorted(row.expected)}"
        label, off = max(((name, abs(found[name] - row.expected[name])) for name in found), key=lambda item: item[1])
        if not off <= SCORE_TOLERANCE:
            return f"it answers {label} {found[label]:.6f} to {row.text[:60]!r}, and the revision's files {row.expected[label]:.6f}"
    return None


def _put_back(
    endpoint: InferenceEndpoint, before: EndpointState | None, model: ModelRevision, config: EndpointConfig, failure: Unhealthy, done: bool, poll_seconds: float
) -> SpaceportError:
    """Undo the move, and return the error to raise. An endpoint that was made here and never served is deleted: it would cost."""
    behind = "promoted, endpoint behind"
    if done:
        return Unhealthy(f"{behind}: {failure}")
    try:
        now = endpoint.state()
        if now and not _is_at(now, model, config.hardware):
            return Conflict(f"endpoint {config.name} was moved to {now.repository}@{now.revision[:8]} by somebody else meanwhile, and is left there. {failure}")
        if before is None:
            endpoint.delete()
            return Unhealthy(f"{behind}: it never served, and is deleted. {failure}")
        old = ModelRevision(repo_id=before.repository, sha=before.revision)
        endpoint.update(old, before.hardware)
        _wait_until_up(endpoint, config.startup_timeout_seconds, poll_seconds)
    except SpaceportError as error:
        return UnknownOutcome(f"{behind}, and the old revision could not be put back ({error}). Look at {config.name}. {failure}")
    return Unhealthy(f"{behind}: {old} serves again. {failure}")


def _wait_until_up(endpoint: InferenceEndpoint, timeout_seconds: float, poll_seconds: float) -> None:
    began = time.monotonic()
    while time.monotonic() - began < timeout_seconds:
        state = _state_if_there(endpoint)
        if state and state.stage in {UP, ASLEEP}:
            return
        if state and state.stage in DOWN:
            raise Unhealthy(f"{state.stage}: {state.message}")
        time.sleep(poll_seconds)
    raise Unhealthy(f"it did not come up within {timeout_seconds:.0f} s")
