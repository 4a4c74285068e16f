"""What a job tells GitHub, against a server that refuses what GitHub's own description of its API wouldn't take."""

from collections.abc import Iterator

import pytest

from infra.actions import ActionsJob
from infra.errors import Unauthorized, Unhealthy
from infra.github import GitHub
from tests.github_api.server import TOKEN, Forge, running_forge

SHA = "c" * 40


@pytest.fixture
def forge() -> Iterator[Forge]:
    with running_forge() as found:
        yield found


@pytest.fixture
def github(forge: Forge) -> GitHub:
    found = GitHub.of(ActionsJob(repository="acme/words", github_token=TOKEN, github_api=forge.url))
    assert found
    return found


def test_one_comment_is_edited_in_place(forge: Forge, github: GitHub) -> None:
    """Also when a hundred and more of other people stand before it; one of another config is another."""
    forge.comments = [{"id": number, "body": f"<!-- not ours --> {number}"} for number in range(1, 131)]
    for text in ("first", "second", "third"):
        github.comment(7, "spaceport a.toml", text)
    github.comment(7, "spaceport b.toml", "another")
    assert [comment["body"] for comment in forge.comments[130:]] == ["<!-- spaceport a.toml -->\nthird", "<!-- spaceport b.toml -->\nanother"]


def test_what_is_too_long_for_github_is_cut(forge: Forge, github: GitHub) -> None:
    """A status takes 140 characters, a comment 65,536; a long message fails no job."""
    github.status(SHA, "spaceport/a", "failure", "word " * 100)
    github.comment(7, "spaceport a.toml", "x" * 100_000)
    assert len(forge.statuses[0]["description"]) == 140 and len(forge.comments[0]["body"]) < 65_536


def test_a_deployment_says_which_revision_is_live(forge: Forge, github: GitHub) -> None:
    """For the commit, whatever its other checks say."""
    github.deployed(SHA, "acme/words", f"acme/words@{SHA}", url="https://acme-words.hf.space", log_url="https://prefect/runs/1")
    (made,) = forge.deployments
    assert (made["ref"], made["required_contexts"], made["auto_merge"]) == (SHA, [], False)
    assert (made["status"]["state"], made["status"]["environment_url"]) == ("success", "https://acme-words.hf.space")


def test_a_job_without_the_permission_is_told_so(forge: Forge, github: GitHub) -> None:
    """And the token isn't part of what is said."""
    forge.may_comment = False
    with pytest.raises(Unauthorized, match="does the job have this permission"):
        github.comment(7, "spaceport a.toml", "hello")
    with pytest.raises(Unauthorized) as refused:
        GitHub("acme/words", "ghs_wrong", forge.url).status(SHA, "a", "success", "b")
    assert "ghs_" not in str(refused.value)
    with pytest.raises(Unhealthy, match="422"):
        github.status(SHA, "a", "splendid", "b")  # type: ignore[arg-type]
    with pytest.raises(Unhealthy, match="can't be reached"):
        GitHub("acme/words", TOKEN, "http://127.0.0.1:9").status(SHA, "a", "success", "b")


def test_outside_of_a_job_nobody_is_told() -> None:
    """No token, no GitHub."""
    assert GitHub.of(ActionsJob(repository="acme/words")) is None
