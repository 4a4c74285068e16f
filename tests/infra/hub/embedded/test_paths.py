"""Nothing that a client can write into a name or a path leaves the root."""

import socket
import string
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.hub.embedded.paths import Patterns, checked_name, checked_path, checked_ref_name
from infra.hub.embedded.refusals import Refusal
from tests import patient_http

CANARY = "canary-7c1f"
CLIMBS = [
    "..",
    "../..",
    "../../tokens.json",
    "..%2f..%2ftokens.json",
    "%2e%2e/%2e%2e/hub.sqlite",
    "....//",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\..\\x",
    "a/../../x",
]


def raw_request(hub, method: str, target: str, body: bytes = b"", token: str | None = None) -> tuple[int, bytes]:
    """Send exactly these bytes; a client library would tidy the path up."""
    address = httpx2.URL(hub.endpoint)
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token or hub.token}\r\nConnection: close\r\n"
        connection.sendall(head.encode("latin-1") + f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return int(answer.split(b" ", 2)[1]), answer


@pytest.fixture(scope="module")
def repo(hub):
    """A repo, and a file beside the root that must never be seen."""
    (hub.root.parent / CANARY).write_text(CANARY)
    (hub.root / CANARY).write_text(CANARY)
    return hub.api().create_repo("paths-team/model").repo_id


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_route_climbs_out(hub, repo, climb):
    """Whatever stands in a revision, path, name, oid or upload id: 4xx, and never a byte of a foreign file."""
    targets = [
        f"/{repo}/resolve/main/{climb}/{CANARY}",
        f"/{repo}/resolve/{climb.replace('/', '%2F')}/{CANARY}",
        f"/{repo}/raw/main/{climb}/{CANARY}",
        f"/{climb}/{CANARY}/resolve/main/x",
        f"/api/models/{climb}/{CANARY}",
        f"/api/models/{repo}/tree/main/{climb}",
        f"/api/models/{repo}/revision/{climb.replace('/', '%2F')}",
        f"/lfs/content/{climb.replace('/', '%2F')}",
        f"/datasets/{climb}/{CANARY}.git/info/lfs/objects/batch",
    ]
    for target in targets:
        for method in ("GET", "POST", "PUT", "DELETE"):
            code, answer = raw_request(hub, method, target, b"{}")
            assert 400 <= code < 500, (method, target, answer[:300])
            assert CANARY.encode() not in answer.partition(b"\r\n\r\n")[2].replace(target.encode(), b"").replace(b"/" + CANARY.encode(), b"")


@pytest.mark.parametrize("name", [*CLIMBS, "", ".", "a--b", "a..b", "-a", "a-", "a.git", "a" * 97, "a/b/c", "ä", "a b", "a\0b", "a\n", None, 3, {"x": 1}])
def test_repo_names_that_are_refused(hub, name):
    """Create and move take only names by the Hub's rule; no folder appears."""
    before = sorted((hub.root / "repos").iterdir())
    headers = {"Authorization": f"Bearer {hub.token}"}
    for body in ({"name": name, "organization": "o"}, {"name": "ok", "organization": name if name is not None else "-"}):
        assert patient_http.post(f"{hub.endpoint}/api/repos/create", json=body, headers=headers).status_code == 400, body
    assert sorted((hub.root / "repos").iterdir()) == before


@pytest.mark.parametrize(
    "path", ["../x", "a/../b", "/x", "a//b", "a/./b", ".", "..", ".git/config", "a/.GIT/hooks/x", "..\\x", ".\\x", "a\0b", "a\nb", "x" * 1025, "", "a/"]
)
def test_file_paths_that_are_refused(hub, repo, path):
    """Neither preupload (422) nor commit (400) takes them."""
    auth = {"Authorization": f"Bearer {hub.token}"}
    file = {"path": path, "size": 1, "sample": "YQ=="}
    assert patient_http.post(f"{hub.endpoint}/api/models/{repo}/preupload/main", json={"files": [file]}, headers=auth).status_code == 422
    import json

    lines = [{"key": "header", "value": {"summary": "x"}}, {"key": "file", "value": {"path": path, "content": "YQ==", "encoding": "base64"}}]
    body = "\n".join(json.dumps(line) for line in lines)
    assert patient_http.post(f"{hub.endpoint}/api/models/{repo}/commit/main", content=body, headers=auth).status_code == 400


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.text(alphabet=string.ascii_letters + "./%2eEfF\\~?#\x7f&=+", max_size=30), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]))
def test_no_request_line_crashes_the_server(hub, repo, tail, method):
    """Any tail below any route is answered with less than 500."""
    for start in (
        f"/{repo}/resolve/main/",
        f"/api/models/{repo}/tree/",
        f"/api/models/{repo}/commit/",
        "/api/",
        "/lfs/parts/",
        f"/{repo}.git/info/lfs/",
        f"/api/models/{repo}/tag/",
    ):
        code, answer = raw_request(hub, method, start + tail, b'{"files": 3, "objects": [3], "tag": {}, "paths": {"a": 1}}')
        assert code < 500, (method, start + tail, answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda c: (
        st.lists(c, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "files",
                    "path",
                    "size",
                    "sample",
                    "objects",
                    "oid",
                    "operation",
                    "transfers",
                    "name",
                    "type",
                    "organization",
                    "fromRepo",
                    "toRepo",
                    "tag",
                    "message",
                    "key",
                    "value",
                    "startingPoint",
                    "gated",
                    "visibility",
                    "paths",
                    "expand",
                    "content",
                    "parts",
                    "summary",
                ]
            ),
            c,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON)
def test_no_json_crashes_the_server(hub, repo, body):
    """Any JSON for any writing route is answered with less than 500."""
    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx2.Client(headers=headers, base_url=hub.endpoint, timeout=patient_http.SECONDS) as client:
        for method, path in (
            ("POST", f"/api/models/{repo}/preupload/main"),
            ("POST", f"/api/models/{repo}/commit/main"),
            ("POST", f"/{repo}.git/info/lfs/objects/batch"),
            ("POST", f"/{repo}.git/info/lfs/verify"),
            ("POST", "/api/repos/move"),
            ("POST", f"/api/models/{repo}/tag/main"),
            ("POST", f"/api/models/{repo}/branch/x%2Fy"),
            ("POST", f"/api/models/{repo}/paths-info/main"),
            ("PUT", f"/api/models/{repo}/settings"),
            ("POST", "/api/validate-yaml"),
            ("DELETE", "/api/repos/delete"),
        ):
            answer = client.request(method, path, json=body)
            assert answer.status_code < 500, (method, path, body, answer.text)


@given(st.text(max_size=40))
def test_checked_names_stay_inside(text):
    """What passes the checks is one segment below any folder, and no ref name or path climbs."""
    for check in (lambda: checked_name(text, "x"), lambda: checked_path(text), lambda: checked_ref_name(text, "x")):
        try:
            checked = check()
        except Refusal:
            continue
        assert Path("/root/here", checked).is_relative_to("/root/here") and ".." not in Path(checked).parts


def test_only_loopback_names_are_served(hub):
    """A web page that points its own host name at 127.0.0.1 is refused; the socket isn't open to other machines."""
    assert patient_http.get(f"{hub.endpoint}/api/models", headers={"Host": "evil.example"}).status_code == 403
    assert patient_http.get(f"{hub.endpoint}/api/models", headers={"Host": "10.89.0.1:7860"}).status_code == 200
    assert patient_http.get(f"{hub.endpoint}/api/models", headers={"Host": "localhost:1"}).status_code == 200
    port = httpx2.URL(hub.endpoint).port
    table = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert {row[1].split(":")[0] for row in table if row[3] == "0A" and int(row[1].split(":")[1], 16) == port} == {"0100007F"}


@pytest.mark.parametrize(
    ("text", "path", "matches"),
    [
        ("*.bin", "a/b.bin", True), ("*.bin", "b.bin.txt", False), ("/x", "x", True), ("/x", "a/x", False), ("x/", "a/x/y", True), ("x/", "x", False),
        ("a/*.txt", "a/b.txt", True), ("a/*.txt", "a/b/c.txt", False), ("a/**/c", "a/c", True), ("a/**/c", "a/b/d/c", True), ("**/c", "a/c", True),
        ("*.log\n!keep.log", "keep.log", False),
        ("*.log\n!keep.log", "other.log", True), ("# no\n", "no", False), ("[ab].txt", "a.txt", True), ("[!ab].txt", "a.txt", False),
        ("d", "d/e/f", True), ("(", "(", True),
    ],
)  # fmt: skip
def test_patterns_mean_what_git_means(text, path, matches):
    """The part of gitignore that people use."""
    assert Patterns.ignore(text).match(path) is matches
