"""Pages for people: the links of a run lead somewhere, private repos stay private, and nothing in a repo can act in the Hub's name."""

import base64
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd

from tests import patient_http

BROWSER = {"accept": "text/html,application/xhtml+xml"}
CARD = (
    "---\nlicense: mit\n---\n# Reviews\n\n| metric | value |\n|---|---|\n| accuracy | 0.82 |\n\n<!-- ours -->made from `datasets/paged/rows@"
    + "a" * 40
    + "`\n\n<script>steal()</script> [bad](javascript:steal())\n"
)


@pytest.fixture(scope="module")
def repo(hub: Any) -> tuple[str, str]:
    """A private model with a card, a folder, a large file, and a branch; and its commit."""
    api = hub.api()
    repo_id = api.create_repo("paged/reviews", private=True, exist_ok=True).repo_id
    files = {"README.md": CARD.encode(), "config.json": b'{"a": "<b>1</b>"}', "deep/notes.txt": b"hello", "model.safetensors": b"\0" * 2_000_000}
    made = api.create_commit(repo_id, [CommitOperationAdd(path, data) for path, data in files.items()], commit_message="First <model>")
    api.create_branch(repo_id, branch="try/one")
    return repo_id, made.oid


def basic(token: str) -> dict[str, str]:
    return BROWSER | {"authorization": "Basic " + base64.b64encode(f"anyone:{token}".encode()).decode()}


def see(hub: Any, path: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    return patient_http.get(f"{hub.endpoint}{path}", headers=basic(hub.token) if headers is None else headers)


def test_a_repos_page_shows_card_files_and_branches(hub: Any, repo: tuple[str, str]) -> None:
    """The page of a repo at a branch, a commit or its root: Markdown tables, files with sizes, refs with their commits."""
    repo_id, sha = repo
    for path in (f"/{repo_id}", f"/{repo_id}/tree/main", f"/{repo_id}/tree/{sha}", f"/{repo_id}/tree/try%2Fone"):
        page = see(hub, path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        assert "<td>accuracy</td>" in page.text and "license" not in page.text and "ours" not in page.text
        assert f'href="/datasets/paged/rows/tree/{"a" * 40}"' in page.text
        assert "model.safetensors" in page.text and "2.0 MB" in page.text and "try/one" in page.text and sha in page.text
    assert "hello" in see(hub, f"/{repo_id}/blob/main/deep/notes.txt").text
    assert "notes.txt" in see(hub, f"/{repo_id}/tree/main/deep").text
    assert "SHA-256" in see(hub, f"/{repo_id}/blob/main/model.safetensors").text
    assert "First &lt;model&gt;" in see(hub, f"/{repo_id}/commits/main").text
    assert repo_id in see(hub, "/").text


def test_what_a_repo_says_cannot_act(hub: Any, repo: tuple[str, str]) -> None:
    """HTML in a card or file is text, script links are none, and the page may load nothing and run nothing."""
    page = see(hub, f"/{repo[0]}")
    assert "<script" not in page.text and 'href="javascript' not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "<b>1</b>" not in see(hub, f"/{repo[0]}/blob/main/config.json").text


def test_a_private_page_asks_for_a_token_and_says_nothing(hub: Any, repo: tuple[str, str]) -> None:
    """Without a token, or with a wrong one, the browser is asked to sign in; absent and private look the same."""
    for headers in (BROWSER, basic("hf_wrong"), BROWSER | {"authorization": "Basic !!"}):
        page = see(hub, f"/{repo[0]}", headers)
        assert page.status_code == 401 and page.headers["www-authenticate"].startswith("Basic") and "accuracy" not in page.text
    hidden, absent = see(hub, f"/{repo[0]}", BROWSER), see(hub, "/paged/nothing", BROWSER)
    assert (hidden.status_code, hidden.text) == (absent.status_code, absent.text)
    assert repo[0] not in see(hub, "/", BROWSER).text
    assert see(hub, "/paged/nothing").status_code == 404
    assert see(hub, f"/{repo[0]}/blob/main/none.txt").status_code == 404


def test_a_browsers_password_opens_nothing_but_reading(hub: Any, repo: tuple[str, str]) -> None:
    """A site that makes a browser post to the Hub gets nothing done with the password that the browser remembers."""
    assert patient_http.get(f"{hub.endpoint}/{repo[0]}/resolve/main/config.json", headers=basic(hub.token)).status_code == 200
    answer = patient_http.post(f"{hub.endpoint}/api/repos/create", headers=basic(hub.token), json={"name": "stolen", "organization": "paged"})
    assert answer.status_code == 401 and not hub.api().repo_exists("paged/stolen")


def test_clients_are_answered_as_before(hub: Any, repo: tuple[str, str]) -> None:
    """What doesn't ask for HTML sees no page: unknown paths stay JSON errors with their codes."""
    plain = patient_http.get(f"{hub.endpoint}/{repo[0]}", headers={"authorization": f"Bearer {hub.token}"})
    assert plain.status_code == 404 and plain.json()["error"]
    assert patient_http.post(f"{hub.endpoint}/{repo[0]}", headers=BROWSER).status_code == 404
