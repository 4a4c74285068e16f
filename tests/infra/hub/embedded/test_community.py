"""Pull requests, discussions, squashed histories, forgotten large files."""

import subprocess

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests import patient_http

USERS = """
open_namespaces = true
[users.owner]
tokens = [{ token = "hf_owner", role = "write" }]
[users.guest]
tokens = [{ token = "hf_guest", role = "write" }]
"""


@pytest.fixture
def model(hub, hub_namespace) -> str:
    """A model repo with one file."""
    repo = hub.api().create_repo(f"{hub_namespace}/model").repo_id
    hub.api().create_commit(repo, [CommitOperationAdd("a.txt", b"1\n"), CommitOperationAdd("b.txt", b"1\n")], commit_message="first")
    return repo


def read(hub, repo: str, path: str, revision: str = "main") -> bytes:
    """A file's bytes."""
    with open(hub.api().hf_hub_download(repo, path, revision=revision), "rb") as file:  # noqa: PTH123
        return file.read()


def test_a_commit_as_pull_request(hub, model):
    """create_pr leaves main alone, numbers the PR, shows its commit and diff; merging brings its changes as one commit."""
    api = hub.api()
    head = api.model_info(model).sha
    commit = api.create_commit(model, [CommitOperationAdd("a.txt", b"2\n")], commit_message="better", commit_description="why", create_pr=True)
    assert (commit.pr_num, commit.pr_revision) == (1, "refs/pr/1")
    assert api.model_info(model).sha == head and api.model_info(model, revision="refs/pr/1").sha == commit.oid
    api.create_commit(model, [CommitOperationAdd("c.txt", b"3\n")], commit_message="more", revision="refs/pr/1")
    details = api.get_discussion_details(model, 1)
    assert (details.title, details.status, details.is_pull_request, details.target_branch) == ("better", "open", True, "refs/heads/main")
    assert [e.summary for e in details.events if e.type == "commit"] == ["better", "more"] and details.events[0].content == "why"
    assert "+2" in details.diff and details.conflicting_files == []
    assert [r.name for r in api.list_repo_refs(model, include_pull_requests=True).pull_requests] == ["1"]
    api.create_commit(model, [CommitOperationAdd("b.txt", b"other\n")], commit_message="meanwhile")
    api.merge_pull_request(model, 1, comment="thanks")
    assert read(hub, model, "a.txt") == b"2\n" and read(hub, model, "b.txt") == b"other\n" and read(hub, model, "c.txt") == b"3\n"
    merged = api.get_discussion_details(model, 1)
    assert merged.status == "merged" and merged.merge_commit_oid == api.model_info(model).sha
    assert [c.title for c in api.list_repo_commits(model)][:2] == ["better (#1)", "meanwhile"]
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(model, 1)


def test_conflicts_are_named_and_not_merged(hub, model):
    """A PR that touches what main touched too can't be merged, and says which file."""
    api = hub.api()
    api.create_commit(model, [CommitOperationAdd("a.txt", b"theirs\n")], commit_message="pr", create_pr=True)
    head = api.create_commit(model, [CommitOperationAdd("a.txt", b"ours\n")], commit_message="main").oid
    assert api.get_discussion_details(model, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match=r"a\.txt"):
        api.merge_pull_request(model, 1)
    assert api.model_info(model).sha == head


def test_drafts_and_discussions(hub, model):
    """Open, comment, edit, hide, rename, close, reopen; listed by type and status."""
    api = hub.api()
    talk = api.create_discussion(model, "Why?", description="Because.")
    draft = api.create_pull_request(model, "Draft")
    assert (talk.num, draft.num, draft.status, talk.status) == (1, 2, "draft", "open")
    said = api.comment_discussion(model, 1, comment="Hm.")
    assert api.edit_discussion_comment(model, 1, comment_id=said.id, new_content="Hm!").content == "Hm!"
    assert api.rename_discussion(model, 1, new_title="Why not?").new_title == "Why not?"
    assert api.change_discussion_status(model, 1, "closed", comment="done").new_status == "closed"
    with pytest.warns(UserWarning, match="irreversible"):
        assert api.hide_discussion_comment(model, 1, comment_id=said.id).hidden
    details = api.get_discussion_details(model, 1)
    assert [e.type for e in details.events] == ["comment", "comment", "title-change", "comment", "status-change"]
    assert [d.num for d in api.get_repo_discussions(model)] == [2, 1]
    assert [d.num for d in api.get_repo_discussions(model, discussion_type="pull_request")] == [2]
    assert [d.num for d in api.get_repo_discussions(model, discussion_status="closed")] == [1]
    with pytest.raises(HfHubHTTPError):
        api.merge_pull_request(model, 2)
    api.change_discussion_status(model, 2, "open")
    api.create_commit(model, [CommitOperationAdd("d.txt", b"d")], commit_message="d", revision="refs/pr/2")
    api.merge_pull_request(model, 2)
    assert read(hub, model, "d.txt") == b"d"


def test_guests_may_propose_and_not_push(start_hub):
    """Who can only read opens PRs and pushes to their own; main, other PRs and the merge are for who may write."""
    hub = start_hub(users=USERS)
    owner, guest = HfApi(hub.endpoint, "hf_owner"), HfApi(hub.endpoint, "hf_guest")
    owner.create_repo("owner/m")
    change = lambda: [CommitOperationAdd("g.txt", b"g")]  # noqa: E731
    guest.create_commit("owner/m", change(), commit_message="please", create_pr=True)
    guest.create_commit("owner/m", [CommitOperationAdd("w.bin", b"w" * 99)], commit_message="more", create_pr=True)
    owner.create_pull_request("owner/m", "mine")
    for forbidden in (
        lambda: guest.create_commit("owner/m", change(), commit_message="x"),
        lambda: guest.create_commit("owner/m", change(), commit_message="x", revision="refs/pr/3"),
        lambda: guest.merge_pull_request("owner/m", 1),
        lambda: guest.change_discussion_status("owner/m", 3, "closed"),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            forbidden()
        assert refused.value.response.status_code == 403
    owner.merge_pull_request("owner/m", 1)
    assert guest.file_exists("owner/m", "g.txt")


def test_super_squash(hub, model):
    """One commit remains, the files stay, other branches keep their history; also on a PR."""
    api = hub.api()
    api.create_branch(model, branch="old")
    api.create_commit(model, [CommitOperationAdd("a.txt", b"pr")], commit_message="pr", create_pr=True)
    before = {s.rfilename: s.blob_id for s in api.model_info(model, files_metadata=True).siblings}
    api.super_squash_history(model, commit_message="squashed")
    assert [c.title for c in api.list_repo_commits(model)] == ["squashed"]
    assert {s.rfilename: s.blob_id for s in api.model_info(model, files_metadata=True).siblings} == before
    assert [c.title for c in api.list_repo_commits(model, revision="old")] == ["first", "initial commit"]
    api.super_squash_history(model, branch="refs/pr/1")
    assert len(api.list_repo_commits(model, revision="refs/pr/1")) == 1
    with pytest.raises(HfHubHTTPError):
        api.super_squash_history(model, branch=api.model_info(model).sha)


def test_forgetting_large_files(hub, model, hub_namespace):
    """Its bytes are gone from the disk and from every commit of every branch and tag; the rest of the history is whole; a copy in another repo stays."""
    api = hub.api()
    secret, kept = f"secret {model}".encode() * 9, f"kept {model}".encode() * 9
    api.create_commit(model, [CommitOperationAdd("secret.bin", secret), CommitOperationAdd("kept.bin", kept)], commit_message="both")
    api.create_branch(model, branch="b")
    api.create_tag(model, tag="light")
    api.create_tag(model, tag="annotated", tag_message="m")
    api.create_commit(model, [CommitOperationAdd("c.txt", b"c")], commit_message="later")
    other = api.create_repo(f"{hub_namespace}/other").repo_id
    api.create_commit(other, [CommitOperationAdd("kept.bin", kept)], commit_message="kept")
    files = {f.filename: f for f in api.list_lfs_files(model)}
    assert set(files) == {"secret.bin", "kept.bin"} and files["secret.bin"].size == len(secret)
    api.permanently_delete_lfs_files(model, files.values())
    for revision in ("main", "b", "light", "annotated"):
        assert set(api.list_repo_files(model, revision=revision)) == {".gitattributes", "a.txt", "b.txt"} | ({"c.txt"} if revision == "main" else set())
    assert list(api.list_lfs_files(model)) == [] and read(hub, other, "kept.bin") == kept
    assert [c.title for c in api.list_repo_commits(model)] == ["later", "both", "first", "initial commit"]
    for line in subprocess.run(["grep", "-rlF", secret[:60].decode(), hub.root / "lfs"], capture_output=True, text=True, check=False).stdout.splitlines():
        pytest.fail(f"still on disk: {line}")


def test_forgetting_without_rewriting(hub, model):
    """The history still names the file; its content is 410."""
    api = hub.api()
    api.create_commit(model, [CommitOperationAdd("w.bin", f"{model}".encode() * 9)], commit_message="w")
    api.permanently_delete_lfs_files(model, list(api.list_lfs_files(model)), rewrite_history=False)
    assert "w.bin" in api.list_repo_files(model)
    headers = {"Authorization": f"Bearer {hub.token}"}
    assert patient_http.get(f"{hub.endpoint}/{model}/resolve/main/w.bin", headers=headers).status_code == 410
