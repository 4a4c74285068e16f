"""The client: each refusal of the Hub is one error of ours, in one line, with the next act; and no answer is taken on trust."""

import socket

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from infra.errors import BadInput, Conflict, QuotaExceeded, RateLimited, Unauthorized, Unhealthy
from infra.hub.answers import hub_errors
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.revisions import Repo
from infra.settings import Settings

USERS = """
default = "team"
[users.team]
tokens = [{ name = "laptop", role = "write" }, { token = "hf_reader", role = "read" }]
[users.stranger]
tokens = [{ token = "hf_stranger", role = "write" }]
"""


@pytest.fixture(scope="module")
def own_hub(tmp_path_factory):
    """A Hub with three tokens that lists three entries a page."""
    root = tmp_path_factory.mktemp("own")
    (root / "users.toml").write_text(USERS)
    with EmbeddedHub.start(root / "hub", users=root / "users.toml", ends_with_parent=True, page_size=3) as hub:
        yield hub


@pytest.fixture(scope="module")
def client(own_hub) -> HubClient:
    return HubClient(own_hub.api())


@pytest.fixture(scope="module")
def repo(client) -> Repo:
    made = Repo(repo_type="model", repo_id="team/model")
    assert client.create(made, "private") is True
    for number in range(7):
        client.api.create_commit(made.repo_id, [CommitOperationAdd("a/b.json", f'{{"n": {number}}}'.encode())], commit_message=f"number {number}")
    return made


def test_a_repo_is_created_once_and_its_visibility_stays(client, repo):
    """The second create says that it was there, and a public wish makes nothing public."""
    assert client.create(repo, "public") is False
    assert client.api.model_info(repo.repo_id).private is True


def test_a_repo_that_somebody_creates_a_breath_earlier_is_there(line, over_the_line, hub, hub_namespace):
    """Between our look and our create another run made it: that is no error, and it isn't ours."""
    repo = Repo(repo_type="model", repo_id=f"{hub_namespace}/model")
    line.on("POST /api/repos/create", first=lambda: hub.api().create_repo(repo.repo_id))
    assert over_the_line.create(repo, "private") is False


def test_small_files_are_read_at_a_revision(client, repo):
    """The bytes of that commit, JSON as a value, and None for what isn't there."""
    commits = client.recent_commits(repo, "main", 10)
    head, older = repo.at(commits[0].sha), repo.at(commits[1].sha)
    assert client.head(repo) == head.sha and client.read_json(head, "a/b.json") == {"n": 6} and client.read_bytes(older, "a/b.json") == b'{"n": 5}'
    assert client.read_bytes(head, "not there") is None and client.read_json(head, "not/there") is None


def test_a_file_that_is_no_json_is_named(client, repo):
    """The message has the path and the revision."""
    head = repo.at(client.head(repo))
    with pytest.raises(BadInput, match=rf"\.gitattributes of {head} is not JSON"):
        client.read_json(head, ".gitattributes")


def test_the_newest_commits_come_page_by_page(client, repo):
    """As many as asked for and not more, newest first, over page borders; none of a branch that isn't there."""
    for limit in (1, 3, 4, 8, 50):
        found = [commit.message.split("\n")[0] for commit in client.recent_commits(repo, "main", limit)]
        assert len(found) == min(limit, 8) and found[:7] == ["number 6", "number 5", "number 4", "number 3", "number 2", "number 1", "number 0"][:limit]
    assert client.recent_commits(repo, "spaceport/none", 5) == [] and client.recent_commits(Repo(repo_type="model", repo_id="team/none"), "main", 5) == []


def test_what_is_not_there_is_none(client, repo):
    """No repo and no branch are answers, not errors."""
    assert client.head(Repo(repo_type="dataset", repo_id="team/none")) is None and client.head(repo, "spaceport/none") is None
    assert client.exists(repo) and not client.exists(Repo(repo_type="dataset", repo_id="team/model"))


def test_a_token_that_may_not_is_named_as_such(own_hub, repo):
    """Wrong, reading only, or another's: Unauthorized or not found, never a trace of the token."""
    head = Repo(repo_type="model", repo_id="team/model")
    cases = [
        ("hf_wrong", lambda client: client.whoami(), Unauthorized, "doesn't accept the token"),
        ("hf_wrong", lambda client: client.head(head), Unauthorized, "doesn't accept the token"),
        ("hf_reader", lambda client: client.create(Repo(repo_type="model", repo_id="team/new"), "private"), Unauthorized, "may not do this"),
        ("hf_stranger", lambda client: client.create(Repo(repo_type="model", repo_id="team/new"), "private"), Unauthorized, "may not do this"),
        ("hf_stranger", lambda client: client.snapshot(head.at("a" * 40)), BadInput, "not found"),
    ]
    for token, act, kind, said in cases:
        with pytest.raises(kind, match=said) as caught:
            act(HubClient(HfApi(endpoint=own_hub.endpoint, token=token)))
        assert token not in str(caught.value) and "\n" not in str(caught.value)


def test_a_private_repo_of_others_is_not_there(own_hub, repo):
    """A stranger can't tell it from nothing."""
    stranger = HubClient(HfApi(endpoint=own_hub.endpoint, token="hf_stranger"))
    assert stranger.head(repo) is None and not stranger.exists(repo)


def test_names_that_cannot_be_are_refused_in_one_line(client):
    """Before the Hub is asked."""
    with pytest.raises(BadInput) as caught:
        client.head(Repo(repo_type="model", repo_id="a/b/c"))
    assert "\n" not in str(caught.value)


def test_no_hub_at_all_is_unhealthy():
    """A port where nobody listens: says so and asks for HF_ENDPOINT."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = HubClient(HfApi(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", token="hf_x"))
        with pytest.raises(Unhealthy, match="Is HF_ENDPOINT right"):
            client.whoami()


KINDS = {400: BadInput, 402: QuotaExceeded, 409: Conflict, 412: Conflict, 413: QuotaExceeded, 422: BadInput, 500: Unhealthy, 502: Unhealthy, 507: QuotaExceeded}


@pytest.mark.parametrize("status", KINDS)
def test_each_status_has_its_kind(line, over_the_line, status):
    """What the Hub answers decides what happens next: retry, wait, or tell a person."""
    line.on("GET /api/whoami-v2", (status, {}, b'{"error": "said so"}'))
    with pytest.raises(KINDS[status], match="said so") as caught:
        over_the_line.whoami()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"RateLimit": '"api";r=0;t=55'}, 56), ({"Retry-After": "7"}, 8), ({}, 60), ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, 60)],
)
def test_a_limit_says_how_long_to_wait(line, over_the_line, headers, seconds):
    """From the Hub's own headers, else a minute."""
    line.on("GET /api/whoami-v2", (429, headers, b'{"error": "slow down"}'), times=9)
    with pytest.raises(RateLimited) as caught:
        over_the_line.whoami()
    assert caught.value.retry_after_seconds == seconds and caught.value.retryable


def test_the_clients_token_comes_from_the_settings(own_hub):
    """HF_ENDPOINT and HF_TOKEN mean here what they mean everywhere."""
    client = HubClient.from_settings(Settings(HF_ENDPOINT=own_hub.endpoint + "/", HF_TOKEN=own_hub.token))
    assert client.whoami()["name"] == "team" and client.endpoint == own_hub.endpoint


def test_errors_of_ours_pass_untouched():
    """What is named already isn't named again."""
    with pytest.raises(BadInput, match=r"^mine$"), hub_errors("doing"):
        raise BadInput("mine")
