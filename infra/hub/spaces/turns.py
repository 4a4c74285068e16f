"""Refreshes of one Space take turns: who comes second waits until the first one's revision is up and proved, or has failed and was put back.

There is no lock that a killed refresh could leave behind: the Space itself says whether somebody is at it.
"""

import logging
import time
from datetime import UTC, datetime

from infra.errors import RateLimited, Unhealthy
from infra.hub.spaces.live import LiveSpace, SpaceState
from infra.hub.spaces.proof import FAILED, SLEEPING, head_of
from infra.hub.spaces.render import PIN_FILE, pin
from infra.hub.spaces.templates import Template
from infra.revisions import ModelRevision

YOUNG_SECONDS = 600.0  # so long after its commit, what is served already may still be being proved: real builds take minutes
log = logging.getLogger("spaceport.refresh_space")


def await_turn(live: LiveSpace, model: ModelRevision, template: Template, timeout_seconds: float, poll_seconds: float, settle_seconds: float) -> None:
    """Return when nobody else is bringing up another revision of this Space, or when that has taken longer than it may."""
    began, served_since = time.monotonic(), None
    while time.monotonic() - began < timeout_seconds:
        try:
            age, pinned, state, served = _look(live, model, template)
        except (Unhealthy, RateLimited) as error:  # the Hub is away for a moment; the time limit ends this
            log.info("%s", error)
        else:
            served_since = (served_since or time.monotonic()) if served else None
            if not pinned or _is_over(state, age, served_since, timeout_seconds, settle_seconds):
                return
            log.info("%s: another refresh is bringing up its revision; waiting", live.repo)
        time.sleep(poll_seconds)


def _look(live: LiveSpace, model: ModelRevision, template: Template) -> tuple[float, bool, SpaceState, bool]:
    """How old the head is, whether it pins another revision than ours, the stage, and whether the app serves what is pinned."""
    head = head_of(live.hub, live.repo)
    content = live.hub.read_bytes(head, PIN_FILE)
    state = live.state()
    if content is None or content == pin(model):
        return 0.0, False, state, False
    commits = live.hub.recent_commits(live.repo, head.sha, 1)
    age = (datetime.now(UTC) - datetime.fromisoformat(commits[0].date.replace("Z", "+00:00"))).total_seconds() if commits else 0.0
    answer = None if state.stage in FAILED or state.stage in SLEEPING else live.revision(template.revision_path)
    served = (
        bool(answer) and pin(ModelRevision.model_construct(repo_id=str(answer.get("model")), sha=str(answer.get("revision")))) == content if answer else False
    )
    return age, True, state, served


def _is_over(state: SpaceState, age_seconds: float, served_since: float | None, timeout_seconds: float, settle_seconds: float) -> bool:
    """Served for long enough that its proof is done; or asleep, failed and not put back, or left alone for too long."""
    if served_since is not None:
        return age_seconds > YOUNG_SECONDS or time.monotonic() - served_since > settle_seconds / 4
    if state.stage in SLEEPING or state.stage in FAILED:
        return age_seconds > settle_seconds
    return age_seconds > timeout_seconds
