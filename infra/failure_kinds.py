"""Every failure has one kind, and every kind one default action: the table that retries, reports and docs/on-call.md are made of."""

from typing import Literal, NamedTuple

FailureKind = Literal[
    "preempted",
    "evicted",
    "out of memory",
    "capacity",
    "quota",
    "auth",
    "rate limited",
    "conflict",
    "bad input",
    "unhealthy",
    "cancelled",
    "unknown outcome",
    "bug",
]
Action = Literal["retry", "attach", "resume", "stop"]
ON_CALL_PAGE = "docs/on-call.md"


class Response(NamedTuple):
    """What is done about a kind without asking anybody, and what a person can do when that was not enough.

    `retry`: the same step again. `attach`: look whether it was carried out, and only then again. `resume`: on from the last sealed checkpoint.
    `stop`: a person decides.
    """

    action: Action
    you_can: str
    pauses_seconds: tuple[float, ...] = ()  # before the first further try, the second, …; a service's own Retry-After goes first

    @property
    def tries_again(self) -> bool:
        """Whether anything is tried again."""
        return self.action != "stop"


RESPONSES: dict[FailureKind, Response] = {
    "preempted": Response("resume", "Retry the run when machines are to be had again: it goes on from the last sealed checkpoint.", (5, 30, 120, 300, 600)),
    "evicted": Response("resume", "Free disk or memory on the node, or ask for more in the target's settings; then retry the run.", (30, 120, 300)),
    "out of memory": Response("stop", "Make the batch smaller, or give the training a larger machine, and run again."),
    "capacity": Response("retry", "Wait and retry the run, or name another target or instance type in the run config.", (60, 300, 900)),
    "quota": Response("stop", "Raise the limit that the message names (time, disk, storage, money), then retry the run: what is sealed is kept."),
    "auth": Response("stop", "Give the worker a token with the permission that the message names, then retry the run."),
    "rate limited": Response("retry", "Wait some minutes, then retry the run.", (60, 120, 300)),
    "conflict": Response("stop", "Look at what the other side did (commits, runs), bring both level, then retry the run: it judges afresh."),
    "bad input": Response("stop", "Correct what the message names and trigger a new run; a retry of this one would say the same."),
    "unhealthy": Response("retry", "Look whether the service that the message names is up, then retry the run.", (5, 30, 120)),
    "cancelled": Response("stop", "Nothing, or retry the run: it goes on from what was finished and sealed."),
    "unknown outcome": Response("attach", "Retry the run: it looks for what was done before it does anything.", (5, 30, 120)),
    "bug": Response("stop", "Retry the run once; if it says the same again, report it with this page and the logs."),
}


def on_call_link(kind: FailureKind) -> str:
    """Where docs/on-call.md speaks of a kind."""
    return f"{ON_CALL_PAGE}#{kind.replace(' ', '-')}"


def what_was_done(kind: FailureKind, tries: int) -> str:
    """What was done about a failure, in one line: how often it was tried, or why it was not tried again."""
    action = RESPONSES[kind].action
    if action == "stop":
        return f"Stopped at once: {kind} doesn't go better by itself. What was finished before is kept."
    if tries <= 1:
        return "Not tried again by itself. What was finished before is kept."
    how = {"retry": "Tried", "attach": "Looked for what was done, and tried", "resume": "Resumed from the last sealed checkpoint; tried"}[action]
    return f"{how} {tries} times in all, without success. What was finished before is kept."
