"""Every failure has one kind, every kind one action and one section for on-call."""

import re
from typing import get_args

import pytest

from infra.errors import BadInput, Preempted, RateLimited, described, error_types, failure_of
from infra.failure_kinds import ON_CALL_PAGE, RESPONSES, FailureKind, on_call_link, what_was_done
from infra.settings import PROJECT

KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
PAGE = (PROJECT / ON_CALL_PAGE).read_text()


def test_the_table_the_tree_and_the_page_name_the_same_kinds() -> None:
    """Thirteen kinds: each has a response, an error class, and a section in docs/on-call.md; none has two."""
    classes = [error.kind for error in error_types()]
    assert len(KINDS) == 13 and set(RESPONSES) == set(KINDS)
    assert sorted(classes) == sorted(KINDS)
    assert sorted(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_link_leads_to_the_section(kind: FailureKind) -> None:
    """A report's link is the anchor that a heading of the page gets."""
    anchors = [heading.replace(" ", "-") for heading in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)]
    assert on_call_link(kind).partition("#")[2] in anchors


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_says_what_was_done_and_what_you_can_do(kind: FailureKind) -> None:
    """Both are one line; what is tried again has pauses that grow, what stops has none."""
    response = RESPONSES[kind]
    assert response.you_can and "\n" not in response.you_can + what_was_done(kind, 3)
    assert bool(response.pauses_seconds) == response.tries_again
    assert list(response.pauses_seconds) == sorted(response.pauses_seconds)


def test_a_failure_keeps_its_kind_through_a_run_state() -> None:
    """What is written into a state comes back as the same error, for every class of the tree."""
    for error_type in error_types():
        found = failure_of(described(error_type("what happened")))
        assert type(found) is error_type and str(found) == "what happened"


def test_pauses_follow_the_table_and_end() -> None:
    """Each try waits longer, a service's own wish is a floor, and at some time it is enough."""
    assert [Preempted("x").pause_seconds(tries) for tries in (1, 5, 6)] == [5, 600, None]
    assert RateLimited("x", retry_after_seconds=90).pause_seconds(1) == 90
    assert RateLimited("x", retry_after_seconds=1).pause_seconds(1) == 60
    assert BadInput("x").pause_seconds(1) is None and not BadInput("x").retryable
