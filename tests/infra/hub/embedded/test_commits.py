"""Commits through huggingface_hub: what goes in comes out, whole, once, and only on the parent that was meant."""

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

from infra.hub.embedded.process import EmbeddedHub
from tests import patient_http


@pytest.fixture
def model(hub: EmbeddedHub, hub_namespace: str) -> str:
    """A fresh model repo."""
    return hub.api().create_repo(f"{hub_namespace}/model").repo_id


def git_sha(content: bytes) -> str:
    """Git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def files(hub: EmbeddedHub, repo: str, revision: str | None = None) -> dict[str, str]:
    """Path to blob id."""
    return {s.rfilename: s.blob_id for s in hub.api().model_info(repo, revision=revision, files_metadata=True).siblings}


def test_regular_and_large_files_arrive_as_git_and_lfs_have_them(hub, model, tmp_path):
    """A text file's blob id is git's own; a large one is a pointer with the content's SHA-256 and size."""
    big = os.urandom(50_000)
    hub.api().create_commit(model, [CommitOperationAdd("folder/a.txt", b"hello\n"), CommitOperationAdd("w.bin", big)], commit_message="both")
    siblings = {s.rfilename: s for s in hub.api().model_info(model, files_metadata=True).siblings}
    assert siblings["folder/a.txt"].blob_id == git_sha(b"hello\n")
    assert siblings["folder/a.txt"].lfs is None
    assert siblings["w.bin"].lfs.sha256 == hashlib.sha256(big).hexdigest()
    assert siblings["w.bin"].size == siblings["w.bin"].lfs.size == 50_000
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(big).hexdigest()}\nsize 50000\n".encode()
    assert siblings["w.bin"].blob_id == git_sha(pointer)
    assert siblings["w.bin"].lfs.pointer_size == len(pointer)
    path = hub.api().hf_hub_download(model, "w.bin", cache_dir=tmp_path)
    assert Path(path).read_bytes() == big


def test_git_itself_reads_the_repository(hub, model):
    """What lies on disk is a bare git repository that `git fsck` finds whole."""
    import subprocess

    hub.api().create_commit(model, [CommitOperationAdd("a/b/c.txt", b"x")], commit_message="title", commit_description="more words")
    bare = max((hub.root / "repos").glob("*.git"), key=os.path.getmtime)
    assert subprocess.run(["git", "-C", bare, "fsck", "--strict"], capture_output=True, check=True).returncode == 0
    log = subprocess.run(["git", "-C", bare, "log", "-1", "--format=%B", "main"], capture_output=True, text=True, check=True).stdout
    assert log.strip() == "title\n\nmore words"


def test_copies_and_deletes_in_one_commit(hub, model):
    """A promotion: files of another branch copied onto main, old ones deleted, in one guarded commit, the same blobs."""
    api = hub.api()
    base = api.create_commit(
        model, [CommitOperationAdd("w.bin", b"old" * 99), CommitOperationAdd("old.txt", b"old"), CommitOperationAdd("keep.txt", b"k")], commit_message="old"
    )
    api.create_branch(model, branch="spaceport/key")
    candidate = api.create_commit(
        model, [CommitOperationAdd("w.bin", b"new" * 99), CommitOperationAdd("sub/config.json", b"{}")], commit_message="candidate", revision="spaceport/key"
    )
    promoted = api.create_commit(
        model,
        [
            CommitOperationCopy("w.bin", "w.bin", src_revision=candidate.oid),
            CommitOperationCopy("sub/config.json", "sub/config.json", src_revision=candidate.oid),
            CommitOperationDelete("old.txt"),
        ],
        commit_message="promote",
        parent_commit=base.oid,
    )
    before, after = files(hub, model, candidate.oid), files(hub, model, promoted.oid)
    assert after["w.bin"] == before["w.bin"] and after["sub/config.json"] == before["sub/config.json"]
    assert set(after) == {".gitattributes", "w.bin", "sub/config.json", "keep.txt"}
    assert [c.title for c in api.list_repo_commits(model)] == ["promote", "old", "initial commit"]


def test_a_stale_parent_is_412_and_changes_nothing(hub, model):
    """Only the parent that the branch still has is accepted."""
    api = hub.api()
    first = api.create_commit(model, [CommitOperationAdd("a", b"1")], commit_message="first")
    second = api.create_commit(model, [CommitOperationAdd("a", b"2")], commit_message="second", parent_commit=first.oid)
    with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page") as refused:
        api.create_commit(model, [CommitOperationAdd("a", b"3")], commit_message="third", parent_commit=first.oid)
    assert refused.value.response.status_code == 412
    assert api.model_info(model).sha == second.oid


def test_an_unchanged_push_is_no_commit(hub, model):
    """The oids that preupload answers let the client see that nothing is new."""
    api = hub.api()
    operations = lambda: [CommitOperationAdd("a.txt", b"1"), CommitOperationAdd("w.bin", b"2" * 99), CommitOperationAdd("empty.bin", b"")]  # noqa: E731
    first = api.create_commit(model, operations(), commit_message="first")
    assert api.create_commit(model, operations(), commit_message="again").oid == first.oid
    assert len(api.list_repo_commits(model)) == 2


def test_empty_files_are_regular(hub, model):
    """An empty file is never LFS, whatever its name."""
    hub.api().create_commit(model, [CommitOperationAdd("empty.bin", b"")], commit_message="empty")
    (info,) = hub.api().get_paths_info(model, ["empty.bin"])
    assert info.lfs is None and info.size == 0 and info.blob_id == git_sha(b"")
    body = {"files": [{"path": "empty.bin", "size": 0, "sample": ""}]}
    answer = patient_http.post(f"{hub.endpoint}/api/models/{model}/preupload/main", json=body, headers={"Authorization": f"Bearer {hub.token}"})
    assert answer.json()["files"][0]["uploadMode"] == "regular"


def test_deleting_what_is_not_there(hub, model):
    """A delete of an absent file or folder refuses the whole commit by name."""
    for operation in (CommitOperationDelete("nope.txt"), CommitOperationDelete("nope/")):
        with pytest.raises(EntryNotFoundError, match="A file with this name doesn't exist"):
            hub.api().create_commit(model, [CommitOperationAdd("a", b"1"), operation], commit_message="x")
    assert "a" not in files(hub, model)


def test_a_folder_is_deleted_with_all_below_it(hub, model):
    """is_folder deletes everything below, and nothing whose name only begins so."""
    api = hub.api()
    names = ["f/a", "f/g/b", "fg/c", "f.txt"]
    api.create_commit(model, [CommitOperationAdd(n, b"1") for n in names], commit_message="x")
    api.delete_folder("f", model)
    assert set(files(hub, model)) == {".gitattributes", "fg/c", "f.txt"}


def test_a_file_takes_the_place_of_a_folder_and_back(hub, model):
    """What was a folder may become a file in one commit, and the other way round, without a trace of the old one."""
    api = hub.api()
    api.create_commit(model, [CommitOperationAdd("x/y/z", b"1"), CommitOperationAdd("x/q", b"1")], commit_message="folder")
    api.create_commit(model, [CommitOperationAdd("x", b"2")], commit_message="file")
    assert set(files(hub, model)) == {".gitattributes", "x"}
    api.create_commit(model, [CommitOperationAdd("x/y", b"3")], commit_message="folder again")
    assert set(files(hub, model)) == {".gitattributes", "x/y"}


def test_only_branches_take_commits(hub, model):
    """A commit SHA, a tag and an unknown name are no branch."""
    api = hub.api()
    sha = api.model_info(model).sha
    api.create_tag(model, tag="v1")
    for revision in (sha, "v1", "unknown"):
        with pytest.raises(RevisionNotFoundError):
            api.create_commit(model, [CommitOperationAdd("a", b"1")], commit_message="x", revision=revision)


def test_ignored_files_stay_out(hub, model, tmp_path):
    """The repo's .gitignore holds for a pushed folder."""
    for name in ("keep.txt", "trace.log", "build/out.txt", "important.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("*.log\n!important.log\n/build/\n")
    hub.api().upload_folder(repo_id=model, folder_path=tmp_path)
    assert set(files(hub, model)) == {".gitattributes", ".gitignore", "keep.txt", "important.log"}


def test_six_hundred_files_are_one_commit(hub, model, tmp_path):
    """Without Xet, upload_folder is one commit however many files there are."""
    for number in range(600):
        (tmp_path / f"{number}.txt").write_text(str(number))
    hub.api().upload_folder(repo_id=model, folder_path=tmp_path)
    assert len(files(hub, model)) == 601
    assert len(hub.api().list_repo_commits(model)) == 2


def test_unicode_paths_and_messages(hub, model, tmp_path):
    """Names outside ASCII, with spaces, percent signs and hashes, survive the way in and out."""
    names = ["ä ö/ü%41.txt", "日本語/データ.txt", "a#b?c&d.txt", "emoji 🚀.txt"]
    hub.api().create_commit(model, [CommitOperationAdd(n, n.encode()) for n in names], commit_message="Größe 🚀")
    for name in names:
        assert Path(hub.api().hf_hub_download(model, name, cache_dir=tmp_path)).read_bytes() == name.encode()
    assert hub.api().list_repo_commits(model)[0].title == "Größe 🚀"
    assert {f.path for f in hub.api().list_repo_tree(model, "日本語")} == {"日本語/データ.txt"}
