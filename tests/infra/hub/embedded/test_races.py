"""Many at once: one winner on one parent, nothing lost without one."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

RACERS = 12


def outcome(work) -> str | int:
    """What became of one racer: the commit, or the status that refused it."""
    try:
        return work().oid
    except HfHubHTTPError as error:
        return error.response.status_code


@pytest.fixture
def model(hub, hub_namespace) -> str:
    """A fresh model repo."""
    return hub.api().create_repo(f"{hub_namespace}/model").repo_id


def race(hub, works) -> list:
    """Run all at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(outcome, works))


@pytest.mark.parametrize("branch", ["main", "spaceport/key"])
def test_of_racing_commits_on_one_parent_exactly_one_wins(hub, model, branch):
    """All others are 412, and the branch is where the winner put it."""
    api = hub.api()
    api.create_branch(model, branch=branch, exist_ok=True)
    for _ in range(3):
        head = api.model_info(model, revision=branch).sha

        def work(number, head=head):
            files = [CommitOperationAdd(f"{number}.txt", head.encode()), CommitOperationAdd("same.txt", f"{head}{number}".encode())]
            return lambda: api.create_commit(model, files, commit_message="race", parent_commit=head, revision=branch)

        results = race(hub, [work(n) for n in range(RACERS)])
        winners = [r for r in results if isinstance(r, str)]
        assert len(winners) == 1 and results.count(412) == RACERS - 1
        assert api.model_info(model, revision=branch).sha == winners[0]
        assert [c.commit_id for c in api.list_repo_commits(model, revision=branch)][:2] == [winners[0], head]


def test_racing_commits_without_a_parent_lose_no_file(hub, model):
    """Every file of every racer is there in the end."""
    api = hub.api()

    def work(number):
        return lambda: api.create_commit(
            model, [CommitOperationAdd(f"f{number}.txt", b"x"), CommitOperationAdd(f"w{number}.bin", f"{model}{number}".encode())], commit_message=f"{number}"
        )

    results = race(hub, [work(n) for n in range(RACERS)])
    assert all(isinstance(r, str) for r in results)
    assert len(api.list_repo_commits(model)) == RACERS + 1
    assert {s.rfilename for s in api.model_info(model).siblings} == {".gitattributes"} | {
        f"{p}{n}.{e}" for n in range(RACERS) for p, e in (("f", "txt"), ("w", "bin"))
    }


def test_racing_creates_make_one_repo(hub, hub_namespace):
    """One create succeeds, the rest are 409; exist_ok succeeds for all."""
    name = f"{hub_namespace}/raced"

    def create() -> str:
        try:
            return hub.api().create_repo(name)
        except HfHubHTTPError as error:
            assert error.response.json()["url"] == f"{hub.endpoint}/{name}"
            return str(error.response.status_code)

    with ThreadPoolExecutor(RACERS) as pool:
        results = list(pool.map(lambda _: create(), range(RACERS)))
        assert results.count("409") == RACERS - 1
        assert len(set(pool.map(lambda _: hub.api().create_repo(f"{name}-2", exist_ok=True), range(RACERS)))) == 1


def test_racing_branches_and_tags(hub, model):
    """A branch and a tag are made once."""
    for create in (lambda: hub.api().create_branch(model, branch="b"), lambda: hub.api().create_tag(model, tag="t")):

        def attempt(_, create=create) -> int:
            try:
                create()
            except HfHubHTTPError as error:
                return error.response.status_code
            return 200

        with ThreadPoolExecutor(RACERS) as pool:
            results = list(pool.map(attempt, range(RACERS)))
        assert sorted(results) == [200] + [409] * (RACERS - 1)
