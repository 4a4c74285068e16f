"""The bytes of files: headers that caches rely on, ranges, errors."""

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd

from infra.hub.embedded.process import EmbeddedHub
from tests import patient_http

TEXT = b"0123456789" * 10
BIG = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def repo(hub: EmbeddedHub) -> str:
    """A repo with a regular and a large file."""
    repo = hub.api().create_repo("resolve-team/model").repo_id
    hub.api().create_commit(repo, [CommitOperationAdd("a.txt", TEXT), CommitOperationAdd("w.bin", BIG)], commit_message="x")
    return repo


@pytest.fixture(scope="module")
def http(hub: EmbeddedHub, repo: str):
    """A plain HTTP client on the repo's resolve route."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(base_url=f"{hub.endpoint}/{repo}/resolve/main/", headers=headers, timeout=patient_http.SECONDS) as client:
        yield client


def test_head_tells_what_get_will_bring(hub, http, repo):
    """The commit, the ETag of git or LFS, the length; LFS is served from here, without a redirect and without Xet."""
    info = {s.rfilename: s for s in hub.api().model_info(repo, files_metadata=True).siblings}
    for name, content in (("a.txt", TEXT), ("w.bin", BIG)):
        head, get = http.head(name), http.get(name)
        assert (head.status_code, get.status_code, get.content) == (200, 200, content)
        for answer in (head, get):
            assert answer.headers["x-repo-commit"] == hub.api().model_info(repo).sha
            assert int(answer.headers["content-length"]) == len(content)
            assert answer.headers["accept-ranges"] == "bytes"
            assert not [h for h in answer.headers if h.startswith("x-xet")] and "xet" not in answer.headers.get("link", "")
    assert http.head("a.txt").headers["etag"] == f'"{info["a.txt"].blob_id}"'
    assert http.head("w.bin").headers["x-linked-etag"] == f'"{info["w.bin"].lfs.sha256}"'
    assert int(http.head("w.bin").headers["x-linked-size"]) == len(BIG)


@pytest.mark.parametrize("name", ["a.txt", "w.bin"])
def test_ranges(http, name):
    """First bytes, middle, open end, last bytes, beyond the end, and a range that is none."""
    content = TEXT if name == "a.txt" else BIG
    for asked, piece in (("0-9", content[:10]), ("5-5", content[5:6]), ("50-", content[50:]), ("-7", content[-7:]), ("90-999999999", content[90:])):
        answer = http.get(name, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, piece), asked
        start = len(content) - len(piece) if asked[0] == "-" else int(asked.split("-")[0])
        assert answer.headers["content-range"] == f"bytes {start}-{start + len(piece) - 1}/{len(content)}"
    for asked in ("bytes=0-1,5-6", "lines=1-2", "bytes=-", "junk"):
        assert http.get(name, headers={"Range": asked}).status_code == 200
    outside = http.get(name, headers={"Range": f"bytes={len(content)}-"})
    assert outside.status_code == 416 and outside.headers["content-range"] == f"bytes */{len(content)}"


def test_unchanged_is_304(http):
    """If-None-Match with the right ETag brings no bytes."""
    etag = http.head("w.bin").headers["etag"]
    answer = http.get("w.bin", headers={"If-None-Match": etag})
    assert answer.status_code == 304 and answer.content == b""


def test_an_absent_file_is_told_with_its_commit(hub, http, repo):
    """EntryNotFound carries X-Repo-Commit, so that clients can remember the absence; a folder is no file."""
    for name in ("no.txt", "no/such/file", "."):
        answer = http.get(name) if name != "." else http.get(f"{hub.endpoint}/{repo}/resolve/main/%2E")
        assert answer.status_code == 404 and answer.headers["x-error-code"] == "EntryNotFound"
        assert answer.headers["x-repo-commit"] == hub.api().model_info(repo).sha
    assert http.get(f"{hub.endpoint}/{repo}/resolve/no-branch/a.txt").headers["x-error-code"] == "RevisionNotFound"


def test_every_error_has_a_request_id(hub, http):
    """And a JSON body that says what was wrong."""
    for path in ("/api/models/x/y", "/nothing/here", "/api/models/gpt2", "/gpt2/resolve/main/config.json", "/api/agent-harnesses"):
        answer = http.get(hub.endpoint + path)
        assert answer.status_code == 404 and answer.headers["x-request-id"] and answer.json()["error"]
    for path in ("/api/models/x/y", "/api/models/gpt2", "/gpt2/resolve/main/config.json", "/api/models/gpt2/tree/main"):
        assert http.get(hub.endpoint + path).headers["x-error-code"] == "RepoNotFound"
        assert patient_http.get(hub.endpoint + path).status_code == 401


def test_a_repo_cannot_run_a_page_in_the_hubs_origin(hub, http, repo):
    """HTML and scripts are sent as plain text."""
    hub.api().create_commit(repo, [CommitOperationAdd("page.html", b"<script>1</script>"), CommitOperationAdd("x.svg", b"<svg/>")], commit_message="page")
    for name in ("page.html", "x.svg"):
        assert http.get(name).headers["content-type"].startswith("text/plain")
