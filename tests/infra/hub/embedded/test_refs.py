"""Branches, tags, history."""

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from infra.hub.embedded.process import EmbeddedHub


@pytest.fixture
def model(hub: EmbeddedHub, hub_namespace: str) -> str:
    """A fresh model repo with two commits."""
    repo = hub.api().create_repo(f"{hub_namespace}/model").repo_id
    hub.api().create_commit(repo, [CommitOperationAdd("a", b"1")], commit_message="one", commit_description="body\nof it")
    return repo


def test_branches_and_tags_with_slashes(hub, model):
    """`spaceport/<key>` is a name like any other, for branches and tags, in every route that takes a revision."""
    api = hub.api()
    head = api.model_info(model).sha
    api.create_branch(model, branch="spaceport/key")
    api.create_tag(model, tag="spaceport/key-tag", tag_message="with a message")
    commit = api.create_commit(model, [CommitOperationAdd("b", b"2")], commit_message="two", revision="spaceport/key")
    refs = api.list_repo_refs(model)
    assert {b.name: b.target_commit for b in refs.branches} == {"main": head, "spaceport/key": commit.oid}
    assert {t.name: (t.ref, t.target_commit) for t in refs.tags} == {"spaceport/key-tag": ("refs/tags/spaceport/key-tag", head)}
    assert api.model_info(model, revision="spaceport/key").sha == commit.oid
    assert api.model_info(model, revision="refs/heads/spaceport/key").sha == commit.oid
    assert [f.path for f in api.list_repo_tree(model, revision="spaceport/key")] == [".gitattributes", "a", "b"]
    assert api.file_exists(model, "b", revision="spaceport/key") and not api.file_exists(model, "b")
    api.delete_branch(model, branch="spaceport/key")
    api.delete_tag(model, tag="spaceport/key-tag")
    refs = api.list_repo_refs(model)
    assert [b.name for b in refs.branches] == ["main"] and refs.tags == []


def test_what_exists_is_409_and_exist_ok_accepts_it(hub, model):
    """A second create of a branch or tag is refused, unless the caller says that it may exist."""
    api = hub.api()
    api.create_branch(model, branch="b")
    api.create_tag(model, tag="t")
    for create in (lambda: api.create_branch(model, branch="b"), lambda: api.create_tag(model, tag="t")):
        with pytest.raises(HfHubHTTPError) as refused:
            create()
        assert refused.value.response.status_code == 409
    with pytest.raises(HfHubHTTPError, match="Reference refs/heads/b already exists"):
        api.create_branch(model, branch="b")
    api.create_branch(model, branch="b", exist_ok=True)
    api.create_tag(model, tag="t", exist_ok=True)


def test_main_cannot_be_deleted_and_absent_refs_are_told(hub, model):
    """main stays; what isn't there is RevisionNotFound."""
    api = hub.api()
    with pytest.raises(HfHubHTTPError, match="Cannot delete refs/heads/main"):
        api.delete_branch(model, branch="main")
    for delete in (lambda: api.delete_branch(model, branch="no"), lambda: api.delete_tag(model, tag="no")):
        with pytest.raises(RevisionNotFoundError):
            delete()
    with pytest.raises(RevisionNotFoundError, match="Invalid rev id"):
        api.create_branch(model, branch="x", revision="no-such")


def test_a_branch_starts_where_it_is_told(hub, model):
    """From a branch, a tag, a full and a short SHA."""
    api = hub.api()
    first = api.list_repo_commits(model)[-1].commit_id
    api.create_tag(model, tag="old", revision=first)
    for number, start in enumerate(("old", first, first[:8])):
        api.create_branch(model, branch=f"b{number}", revision=start)
        assert api.model_info(model, revision=f"b{number}").sha == first


def test_a_branch_below_a_branch_is_refused_in_words(hub, model):
    """Git can't hold both `a` and `a/b`: 409, not a crash."""
    hub.api().create_branch(model, branch="a")
    with pytest.raises(HfHubHTTPError) as refused:
        hub.api().create_branch(model, branch="a/b")
    assert refused.value.response.status_code == 409


@pytest.mark.parametrize("name", ["a..b", "a//b", "-x", "a b", "a~1", "a.lock", "refs/heads/x", "x" * 300, "a\\b", "@{u}"])
def test_names_that_git_refuses(hub, model, name):
    """A branch or tag name that git wouldn't take is a 400."""
    for create in (lambda: hub.api().create_branch(model, branch=name), lambda: hub.api().create_tag(model, tag=name)):
        with pytest.raises(HfHubHTTPError) as refused:
            create()
        assert refused.value.response.status_code == 400


def test_history_in_pages(hub, model):
    """All commits, newest first, over more than one page."""
    api = hub.api()
    for number in range(60):
        api.create_commit(model, [CommitOperationAdd("a", str(number).encode())], commit_message=f"number {number}")
    titles = [c.title for c in api.list_repo_commits(model)]
    assert titles == [f"number {n}" for n in reversed(range(60))] + ["one", "initial commit"]
    one = api.list_repo_commits(model, formatted=True)[-2]
    assert (one.title, one.message, one.authors, one.formatted_title) == ("one", "body\nof it", ["spaceport"], "one")


def test_trees_in_pages(start_hub):
    """Trees and lists are whole however many pages they come in."""
    hub = start_hub(page_size=7)
    api = hub.api()
    api.create_repo("o/m")
    names = [f"{letter}/ä {n}.txt" for letter in "ab" for n in range(15)]
    api.create_commit("o/m", [CommitOperationAdd(n, b"x") for n in names], commit_message="x")
    assert {e.path for e in api.list_repo_tree("o/m", recursive=True)} == {".gitattributes", "a", "b", *names}
    assert {e.path for e in api.list_repo_tree("o/m", "b")} == {n for n in names if n[0] == "b"}
    for number in range(10):
        api.create_repo(f"o/d{number}")
    assert len(list(api.list_models(author="o"))) == 11


def test_expand_names_the_commit_that_last_touched_each_path(hub, model):
    """list_repo_tree(expand) shows for files and folders the last commit that changed them."""
    api = hub.api()
    api.create_commit(model, [CommitOperationAdd("folder/x", b"1")], commit_message="folder")
    api.create_commit(model, [CommitOperationAdd("b", b"1")], commit_message="b")
    entries = {e.path: e.last_commit.title for e in api.list_repo_tree(model, expand=True, recursive=True)}
    assert entries == {".gitattributes": "initial commit", "a": "one", "folder": "folder", "folder/x": "folder", "b": "b"}
