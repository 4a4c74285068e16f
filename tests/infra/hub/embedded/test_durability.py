"""Whole or absent: kill -9, a full disk, restarts."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx2
import pygit2
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from infra.hub.embedded.process import EmbeddedHub
from tests import patient_http
from tests.eventually import eventually


def set_of_files(tag: int) -> list[CommitOperationAdd]:
    """Ten files that belong together: all carry one number."""
    return [CommitOperationAdd(f"part-{n}.txt", f"{tag}".encode()) for n in range(9)] + [CommitOperationAdd("w.bin", f"{tag}".encode() * 50_000)]


def content_of(hub: EmbeddedHub, repo: str, revision: str) -> set[str]:
    """The numbers found in a revision's ten files."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    names = [f"part-{n}.txt" for n in range(9)] + ["w.bin"]
    answers = [patient_http.get(f"{hub.endpoint}/{repo}/resolve/{revision}/{name}", headers=headers) for name in names]
    assert {a.status_code for a in answers} == {200}
    texts = [a.text for a in answers]
    assert len(texts[-1]) % 50_000 == 0
    return {*texts[:-1], texts[-1][: len(texts[-1]) // 50_000]}


def test_a_restart_keeps_everything(start_hub, tmp_path):
    """Tokens, repos, settings, files, branches, tags, moves: all as they were."""
    hub = start_hub()
    api = hub.api()
    api.create_repo("o/m", private=True)
    api.create_repo("o/old-name", repo_type="dataset")
    api.move_repo("o/old-name", "o/new-name", repo_type="dataset")
    commit = api.create_commit("o/m", set_of_files(1), commit_message="x")
    api.create_branch("o/m", branch="spaceport/b")
    api.create_tag("o/m", tag="t")
    api.update_repo_settings("o/m", gated="auto")
    refs, info = api.list_repo_refs("o/m"), api.model_info("o/m", files_metadata=True)
    hub.stop()
    again = start_hub()
    assert again.token == hub.token
    assert again.api().list_repo_refs("o/m") == refs
    assert again.api().model_info("o/m", files_metadata=True) == info
    assert info.private and info.gated == "auto" and info.sha == commit.oid
    assert content_of(again, "o/m", "main") == {"1"}
    assert again.api().dataset_info("o/old-name").id == "o/new-name"


PUSHER = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
number = int(sys.argv[1])
while True:
    files = [CommitOperationAdd(f"part-{n}.txt", str(number).encode()) for n in range(9)] + [CommitOperationAdd("w.bin", str(number).encode() * 50_000)]
    HfApi().create_commit("o/m", files, commit_message=f"number {number}")
    print(number, flush=True)
    number += 1
"""


def test_kill_9_in_the_middle_of_commits(start_hub):
    """Whatever was answered is there; what wasn't is there whole or not at all; git finds the repository sound."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    hub.api().create_commit("o/m", set_of_files(0), commit_message="number 0")
    newest = 0
    for round_number in range(3):
        arguments = [sys.executable, "-c", PUSHER, str(newest + 1)]
        pusher = subprocess.Popen(arguments, env=os.environ | hub.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        answered = [int(pusher.stdout.readline()) for _ in range(3)]
        threading.Event().wait(0.005 * round_number)  # another point of the commit each round
        hub.kill()
        pusher.kill()
        answered += [int(line) for line in pusher.stdout]
        pusher.wait()
        pusher.stdout.close()
        hub = start_hub()
        titles = [c.title for c in hub.api().list_repo_commits("o/m")]
        newest = int(titles[0].split()[1])
        assert newest in (answered[-1], answered[-1] + 1)
        assert content_of(hub, "o/m", "main") == {str(newest)}
    (bare,) = (hub.root / "repos").glob("*.git")
    assert b"missing" not in subprocess.run(["git", "-C", bare, "fsck", "--full"], capture_output=True, check=True).stdout


CREATOR = """
import os, sys, threading
import httpx2
prefix = sys.argv[1]
def work(thread):
    with httpx2.Client(base_url=os.environ["HF_ENDPOINT"], headers={"Authorization": "Bearer " + os.environ["HF_TOKEN"]}) as client:
        for number in range(100000):
            name = f"{prefix}-{thread}-{number}"
            assert client.post("/api/repos/create", json={"name": name, "organization": "o"}).status_code == 200
            os.write(1, f"+ {name}\\n".encode())  # one write: lines of several threads stay whole
            if number % 2:
                assert client.request("DELETE", "/api/repos/delete", json={"name": name, "organization": "o"}).status_code == 200
                os.write(1, f"- {name}\\n".encode())
for thread in range(5):
    threading.Thread(target=work, args=(thread,), daemon=False).start()
"""


def test_kill_9_in_the_middle_of_creates_and_deletes(start_hub):
    """A repo is there with its first commit, or not at all; nothing of the half-made stays on disk."""
    hub = start_hub()
    created, deleted = set(), set()
    for round_number in range(4):
        arguments = [sys.executable, "-c", CREATOR, f"r{round_number}"]
        creator = subprocess.Popen(arguments, env=os.environ | hub.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = [creator.stdout.readline() for _ in range(20)]
        hub.kill()
        creator.kill()
        lines += list(creator.stdout)
        creator.wait()
        creator.stdout.close()
        created |= {line[2:].strip() for line in lines if line[0] == "+"}
        deleted |= {line[2:].strip() for line in lines if line[0] == "-"}
        hub = start_hub()
        models = {m.id.removeprefix("o/"): m for m in hub.api().list_models(author="o")}
        assert deleted.isdisjoint(models)
        assert all(name in models for name in created - deleted if int(name.rsplit("-", 1)[1]) % 2 == 0)
        assert len(list((hub.root / "repos").iterdir())) == len(models)
    for bare in (hub.root / "repos").iterdir():
        assert [entry.name for entry in pygit2.Repository(str(bare)).revparse_single("main").tree] == [".gitattributes"]


def test_kill_9_in_the_middle_of_an_upload(start_hub):
    """Half a large file is never seen; the same upload works after the restart and leaves no rest."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    content = os.urandom(4_000_000)
    oid = hashlib.sha256(content).hexdigest()
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": len(content)}]}
    headers = {"Authorization": f"Bearer {hub.token}"}
    answer = patient_http.post(f"{hub.endpoint}/o/m.git/info/lfs/objects/batch", json=body, headers=headers).json()

    def half() -> "object":
        yield content[:2_000_000]
        hub.kill()
        yield content[2_000_000:]

    with pytest.raises(httpx2.HTTPError):
        patient_http.put(answer["objects"][0]["actions"]["upload"]["href"], content=half(), headers={"Content-Length": str(len(content))})
    hub = start_hub()
    assert [p for p in (hub.root / "lfs").rglob("*") if p.is_file()] == []
    hub.api().create_commit("o/m", [CommitOperationAdd("w.bin", content)], commit_message="x")
    assert hub.api().model_info("o/m", files_metadata=True).siblings[-1].lfs.sha256 == oid


def test_a_client_that_hangs_up_leaves_nothing(start_hub, requests_of):
    """Half a commit and half an upload, cut off by the client: no change, no rest on disk, no trace of a crash in the log."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    head = hub.api().model_info("o/m").sha
    line = b'{"key":"header","value":{"summary":"x"}}\n{"key":"file","value":{"path":"a","content":"b"}}\n'
    oid = hashlib.sha256(bytes(10_000_000)).hexdigest()
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": 10_000_000}]}
    headers = {"Authorization": f"Bearer {hub.token}"}
    batch = patient_http.post(f"{hub.endpoint}/o/m.git/info/lfs/objects/batch", json=body, headers=headers).json()
    upload = httpx2.URL(batch["objects"][0]["actions"]["upload"]["href"]).raw_path.decode()
    for method, target, half in (("POST", "/api/models/o/m/commit/main", line), ("PUT", upload, bytes(3_000_000))):
        with socket.create_connection(("127.0.0.1", httpx2.URL(hub.endpoint).port)) as connection:
            head_lines = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {hub.token}\r\nContent-Length: 10000000\r\n\r\n"
            connection.sendall(head_lines.encode() + half)
    eventually(lambda: sum(call.endswith(" 499") for call in requests_of(hub)) == 2)
    assert hub.api().model_info("o/m").sha == head
    assert [p for p in (hub.root / "lfs").rglob("*") if p.is_file()] == []
    assert (hub.root / "server.log").read_text() == ""


def test_parts_survive_a_kill(start_hub):
    """What was uploaded in parts before a kill needn't be sent again: the links still hold."""
    hub = start_hub(multipart_bytes=1000, part_bytes=1000)
    hub.api().create_repo("o/m")
    content = os.urandom(2000)
    oid = hashlib.sha256(content).hexdigest()
    body = {"operation": "upload", "transfers": ["multipart"], "objects": [{"oid": oid, "size": 2000}]}
    headers = {"Authorization": f"Bearer {hub.token}"}
    upload = patient_http.post(f"{hub.endpoint}/o/m.git/info/lfs/objects/batch", json=body, headers=headers).json()["objects"][0]["actions"]["upload"]
    one = patient_http.put(upload["header"]["1"], content=content[:1000]).headers["etag"]
    port = httpx2.URL(hub.endpoint).port
    hub.kill()
    hub = start_hub(port=port, multipart_bytes=1000, part_bytes=1000)
    two = patient_http.put(upload["header"]["2"], content=content[1000:]).headers["etag"]
    parts = [{"partNumber": 1, "etag": one}, {"partNumber": 2, "etag": two}]
    assert patient_http.post(upload["href"], json={"oid": oid, "parts": parts}).status_code == 200


def full_disk(tmp_path: Path) -> Path:
    """A folder on a file system of 8 MB, or a skip where none can be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    return folder


def test_a_full_disk(start_hub, tmp_path):
    """Uploads, commits and creates on a full disk are 507, change nothing, and work again when there is room."""
    folder = full_disk(tmp_path)
    try:
        hub = start_hub(folder / "root")
        api = hub.api()
        api.create_repo("o/m")
        head = api.create_commit("o/m", set_of_files(1), commit_message="x").oid
        with pytest.raises(Exception, match=r"w\.bin") as failed:
            api.create_commit("o/m", [CommitOperationAdd("w.bin", os.urandom(9_000_000))], commit_message="too much")
        assert isinstance(failed.value.__cause__, HfHubHTTPError) and failed.value.__cause__.response.status_code == 507
        ballast = folder / "ballast"
        with ballast.open("wb", buffering=0) as out, pytest.raises(OSError):
            while True:
                out.write(bytes(4096))
        for attempt in (
            lambda: api.create_commit("o/m", [CommitOperationAdd("a.txt", os.urandom(40_000).hex().encode())], commit_message="no room"),
            lambda: api.create_repo("o/no-room"),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt()
            assert refused.value.response.status_code == 507
        assert api.model_info("o/m").sha == head and content_of(hub, "o/m", "main") == {"1"}
        ballast.unlink()
        assert not api.repo_exists("o/no-room")
        api.create_repo("o/no-room")
        api.create_commit("o/m", set_of_files(2), commit_message="room again", parent_commit=head)
        assert content_of(hub, "o/m", "main") == {"2"}
        hub.stop()
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_one_server_per_root(start_hub):
    """A second one on the same root says so and leaves the first alone."""
    hub = start_hub()
    with pytest.raises(Exception, match="Another Hub is running on"):
        start_hub()
    assert hub.api().whoami()["name"] == "spaceport"


def test_it_ends_with_its_parent(tmp_path):
    """A test run that is killed leaves no Hub behind."""
    program = (
        "import sys, pathlib, time; from infra.hub.embedded.process import EmbeddedHub\n"
        f"print(EmbeddedHub.start(pathlib.Path({str(tmp_path / 'root')!r}), ends_with_parent=True).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    eventually(lambda: not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z")
    parent.stdin.close()
    parent.stdout.close()


def test_secrets_are_for_the_owner_only(hub):
    """Tokens, signing key and database are 0600, and no token is in any log."""
    for name in ("tokens.json", "signing.key", "hub.sqlite", "access.log"):
        assert (hub.root / name).stat().st_mode & 0o077 == 0, name
    for name in ("access.log", "server.log"):
        assert hub.token not in (hub.root / name).read_text()
    assert hub.token in json.loads((hub.root / "tokens.json").read_text()).values()
