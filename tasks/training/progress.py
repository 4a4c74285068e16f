"""Shows where a training is while it runs: one artifact on the run page that is moved on, and a log line now and then."""

import re
import time
from collections.abc import Mapping
from logging import Logger, LoggerAdapter
from typing import Any

from infra.errors import SpaceportError
from infra.prefect_api import PrefectApi
from tasks.outcomes import PROGRESS_KEY, TRACKER_KEY

SHOW_SECONDS, LOG_SECONDS = 1.0, 10.0
Facts = Mapping[str, float | int | str]


class ProgressDisplay:
    """Called with the facts of each progress line (`step`, `total`, `loss`, `eta_seconds`)."""

    def __init__(
        self, api: PrefectApi, run_id: str | None, log: "Logger | LoggerAdapter[Any]", usd_per_hour: float | None = None, paid_since: float | None = None
    ) -> None:
        self.api, self.run_id, self.log, self.usd_per_hour = api, run_id, log, usd_per_hour
        self.paid_since = paid_since or time.time()
        self.artifact = ProgressArtifact(api, run_id)
        self.shown_at = self.logged_at = float("-inf")

    def __call__(self, facts: Facts) -> None:
        """Show the facts, at most once a second; log them every ten."""
        if "tracker" in facts:
            self._lead_to(" ".join(str(facts["tracker"]).split())[:500])
        if "step" not in facts:
            return
        now = time.monotonic()
        text = describe(facts) + (f", {(time.time() - self.paid_since) / 3600 * self.usd_per_hour:.2f} USD in this attempt" if self.usd_per_hour else "")
        if now - self.logged_at > LOG_SECONDS:
            self.logged_at = now
            self.log.info(text)
        if self.run_id and now - self.shown_at > SHOW_SECONDS:
            self.shown_at = now
            self._show(text)

    def _lead_to(self, tracker: str) -> None:
        """The script says where its numbers are to be seen: a link, or what to type."""
        shown = f"[{tracker}]({tracker})" if re.fullmatch(r"https?://[^\s()\[\]<>`]+", tracker) else f"`{tracker.replace('`', '')}`"
        body = {"key": TRACKER_KEY, "type": "markdown", "data": shown, "description": "the tracker", "flow_run_id": self.run_id}
        try:
            if self.run_id:
                self.api.call("POST", "/artifacts/", body)
        except SpaceportError as error:
            self.log.info("the tracker's address can't be shown: %s", error)

    def _show(self, text: str) -> None:
        try:
            self.artifact.show(percent_of(text), text)
        except SpaceportError as error:  # the training matters more than its display
            self.log.info("progress can't be shown: %s", error)


class ProgressArtifact:
    """A run page's one progress artifact, made at the first word and moved on from then."""

    def __init__(self, api: PrefectApi, run_id: str | None) -> None:
        self.api, self.run_id = api, run_id
        self.artifact_id: str | None = None

    def show(self, percent: float, text: str) -> None:
        """Say how far, and in words where."""
        if self.artifact_id is None:
            body = {"key": PROGRESS_KEY, "type": "progress", "data": percent, "description": text, "flow_run_id": self.run_id}
            self.artifact_id = str(self.api.call("POST", "/artifacts/", body)["id"])
        else:
            self.api.call("PATCH", f"/artifacts/{self.artifact_id}", {"data": percent, "description": text})


def percent_of(text: str) -> float:
    """How far the words of `describe` are: `step 40 of 125` is 32; 0 where they name no step."""
    found = re.search(r"\bstep (\d+) of (\d+)", text)
    return 100.0 * int(found[1]) / int(found[2]) if found and int(found[2]) else 0.0


def describe(facts: Facts) -> str:
    """The facts in one line: `step 40 of 125, loss 0.513, 12 s left`."""
    parts = [f"step {facts['step']} of {facts['total']}" if "step" in facts and "total" in facts else ""]
    for name, form in (("loss", "loss {:.3f}"), ("eta_seconds", "{:.0f} s left")):
        value = facts.get(name)
        parts.append(form.format(value) if isinstance(value, int | float) else "")
    return ", ".join(part for part in parts if part)
