"""Large files: the calls that the client makes, signed links, parts, hashes, and memory that stays flat."""

import hashlib
import os
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests import patient_http

MEGABYTE = 1 << 20


def batch(hub, repo: str, content: bytes, size: int | None = None, operation: str = "upload", token: str | None = None, **extra) -> dict:
    """One object of an LFS batch answer."""
    body = {
        "operation": operation,
        "transfers": ["basic", "multipart"],
        "objects": [{"oid": hashlib.sha256(content).hexdigest(), "size": size or len(content)}],
    }
    headers = {"Authorization": f"Bearer {token or hub.token}"}
    answer = patient_http.post(f"{hub.endpoint}/{repo}.git/info/lfs/objects/batch", json=body | extra, headers=headers)
    answer.raise_for_status()
    return answer.json()["objects"][0]


@pytest.fixture
def model(hub, hub_namespace) -> str:
    """A fresh model repo."""
    return hub.api().create_repo(f"{hub_namespace}/model").repo_id


def test_the_client_uploads_by_lfs_and_by_nothing_else(start_hub, requests_of):
    """The exact calls of one commit with a large file: when a newer client takes another way (Xet), this fails first."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    since = len(requests_of(hub, at_least=1))
    content = os.urandom(2 * MEGABYTE)
    hub.api().create_commit("o/m", [CommitOperationAdd("w.safetensors", content), CommitOperationAdd("a.txt", b"a")], commit_message="x")
    assert requests_of(hub, since, at_least=5) == [
        "POST /api/models/o/m/preupload/main 200",
        "POST /o/m.git/info/lfs/objects/batch 200",
        f"PUT /lfs/content/{hashlib.sha256(content).hexdigest()} 200",
        "POST /o/m.git/info/lfs/verify 200",
        "POST /api/models/o/m/commit/main 200",
    ]


def test_the_client_downloads_from_resolve_and_from_nowhere_else(start_hub, requests_of, tmp_path):
    """One HEAD and one GET per file."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    hub.api().create_commit("o/m", [CommitOperationAdd("w.bin", b"w" * 999)], commit_message="x")
    since = len(requests_of(hub, at_least=6))
    hub.api().hf_hub_download("o/m", "w.bin", cache_dir=tmp_path)
    assert requests_of(hub, since, at_least=2) == ["HEAD /o/m/resolve/main/w.bin 200", "GET /o/m/resolve/main/w.bin 200"]


def test_xet_really_is_on_unless_it_is_switched_off(start_hub, requests_of, tmp_path):
    """Why HF_HUB_DISABLE_XET=1 is in the environment: without it, this client asks for a Xet token and gives up."""
    import subprocess
    import sys

    hub = start_hub()
    hub.api().create_repo("o/m")
    since = len(requests_of(hub))
    program = "import os, huggingface_hub as h; h.HfApi().upload_file(path_or_fileobj=os.urandom(99_999), path_in_repo='w.bin', repo_id='o/m')"
    environment = {k: v for k, v in {**os.environ, **hub.environment, "HF_HOME": str(tmp_path)}.items() if k != "HF_HUB_DISABLE_XET"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "GET /api/models/o/m/xet-write-token/main 404" in requests_of(hub, since)


def test_parts(start_hub, requests_of, tmp_path):
    """A file above the limit goes up in parts, the last one shorter, and comes back the same."""
    hub = start_hub(multipart_bytes=3 * MEGABYTE, part_bytes=MEGABYTE)
    hub.api().create_repo("o/m")
    content = os.urandom(3 * MEGABYTE + 12345)
    hub.api().create_commit("o/m", [CommitOperationAdd("w.bin", content)], commit_message="x")
    calls = requests_of(hub)
    assert sum(c.startswith("PUT /lfs/parts/") for c in calls) == 4 and sum(c.startswith("POST /lfs/parts/") for c in calls) == 1
    assert Path(hub.api().hf_hub_download("o/m", "w.bin", cache_dir=tmp_path)).read_bytes() == content
    assert list((hub.root / "lfs" / "incoming").iterdir()) == []


def test_a_completion_whose_answer_was_lost_can_be_sent_again(start_hub):
    """The client repeats it; the second answer is the same yes."""
    hub = start_hub(multipart_bytes=1000, part_bytes=1000)
    hub.api().create_repo("o/m")
    content = os.urandom(2500)
    upload = batch(hub, "o/m", content)["actions"]["upload"]
    etags = [patient_http.put(upload["header"][str(n)], content=content[(n - 1) * 1000 : n * 1000]).headers["etag"] for n in (1, 2, 3)]
    body = {"oid": hashlib.sha256(content).hexdigest(), "parts": [{"partNumber": n, "etag": e} for n, e in enumerate(etags, 1)]}
    assert [patient_http.post(upload["href"], json=body).status_code for _ in range(2)] == [200, 200]


def test_wrong_parts_are_refused(start_hub):
    """A part that is missing, too long, too short, or announced with another ETag leaves no file."""
    hub = start_hub(multipart_bytes=1000, part_bytes=1000)
    hub.api().create_repo("o/m")
    content = os.urandom(2000)
    upload = batch(hub, "o/m", content)["actions"]["upload"]
    body = {"oid": hashlib.sha256(content).hexdigest(), "parts": [{"partNumber": 1, "etag": "x"}, {"partNumber": 2, "etag": "y"}]}
    assert patient_http.post(upload["href"], json=body).status_code == 400
    assert patient_http.put(upload["header"]["1"], content=content[:1001]).status_code == 400
    assert patient_http.put(upload["header"]["1"], content=content[:999]).status_code == 400
    for n in (1, 2):
        patient_http.put(upload["header"][str(n)], content=b"0" * 1000)
    assert patient_http.post(upload["href"], json=body).status_code == 400
    assert "actions" in batch(hub, "o/m", content)


@pytest.mark.parametrize("sent", [b"other content!", b"too short", b"far too long " * 9, b""])
def test_content_that_is_not_the_announced_is_refused(hub, model, sent):
    """Size and SHA-256 are checked before anything is kept."""
    content = os.urandom(14)
    action = batch(hub, model, content)["actions"]["upload"]
    assert patient_http.put(action["href"], content=sent).status_code == 400
    assert "actions" in batch(hub, model, content)
    assert patient_http.put(action["href"], content=content).status_code == 200
    assert "actions" not in batch(hub, model, content)


def test_a_commit_cannot_name_what_was_not_uploaded(hub, model):
    """Neither by an lfsFile line nor by a hand-made pointer."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n" % (b"0" * 64)
    with pytest.raises(HfHubHTTPError, match="not uploaded"):
        hub.api().create_commit(model, [CommitOperationAdd("p.txt", pointer)], commit_message="x")


def test_links_are_signed_and_expire(start_hub):
    """A changed, foreign or old link is 403, and needs no Authorization when it is right."""
    hub = start_hub(link_seconds=0)
    hub.api().create_repo("o/m")
    old = batch(hub, "o/m", b"x" * 99)["actions"]["upload"]["href"]
    hub.stop()
    hub = start_hub()
    good = batch(hub, "o/m", b"x" * 99)["actions"]["upload"]["href"]
    address = urlsplit(good)
    for name, value in (("signature", "0" * 64), ("signature", "ü"), ("expires", "99999999999"), ("size", "100"), ("repo", "0" * 32)):
        changed = address._replace(query=urlencode(dict(parse_qsl(address.query)) | {name: value})).geturl()
        assert patient_http.put(changed, content=b"x" * 99).status_code == 403, name
    assert patient_http.put(address._replace(query="").geturl(), content=b"x" * 99).status_code == 403
    assert patient_http.put(good.replace(address.path, "/lfs/content/" + "1" * 64), content=b"x" * 99).status_code == 403
    assert patient_http.get(good).status_code == 403
    assert patient_http.put(old.replace(urlsplit(old).netloc, address.netloc), content=b"x" * 99).status_code == 403
    assert patient_http.put(good, content=b"x" * 99).status_code == 200


def test_git_lfs_can_download_by_signed_link(hub, model):
    """operation=download brings a link that holds by itself; an object of another repo brings an error."""
    hub.api().create_commit(model, [CommitOperationAdd("w.bin", b"w" * 999)], commit_message="x")
    href = batch(hub, model, b"w" * 999, operation="download")["actions"]["download"]["href"]
    assert patient_http.get(href).content == b"w" * 999
    assert batch(hub, model, b"other", operation="download")["error"]["code"] == 404


def roundtrip(hub, size: int, folder: Path) -> None:
    """Upload and download a file of a size; its content doesn't repeat within a block."""
    source = folder / "big.bin"
    block = os.urandom(MEGABYTE)
    with source.open("wb") as out:
        for number in range(size // MEGABYTE):
            out.write(number.to_bytes(8, "big") + block[8:])
    hub.api().create_repo("o/big", exist_ok=True)
    hub.api().upload_file(path_or_fileobj=source, path_in_repo="big.bin", repo_id="o/big")
    downloaded = hub.api().hf_hub_download("o/big", "big.bin", local_dir=folder / "down")
    with source.open("rb") as a, Path(downloaded).open("rb") as b:
        assert hashlib.file_digest(a, "sha256").digest() == hashlib.file_digest(b, "sha256").digest()


@pytest.mark.parametrize("options", [{}, {"multipart_bytes": 50 * MEGABYTE, "part_bytes": 16 * MEGABYTE}], ids=["whole", "parts"])
def test_memory_stays_flat(start_hub, memory_of, tmp_path, options):
    """200 MB up and down never put the server above 120 MB."""
    hub = start_hub(**options)
    roundtrip(hub, 200 * MEGABYTE, tmp_path)
    assert memory_of(hub) < 120


def test_deleted_repos_give_their_bytes_back(start_hub):
    """A large file goes with the last repo that names it, and what a kill left without a name goes at the next start."""
    hub = start_hub()
    api = hub.api()
    content = os.urandom(5000)
    for name in ("a", "b"):
        api.create_repo(f"o/{name}")
        api.create_commit(f"o/{name}", [CommitOperationAdd("w.bin", content)], commit_message="x")
    kept = hub.root / "lfs" / hashlib.sha256(content).hexdigest()[:2] / hashlib.sha256(content).hexdigest()[2:4] / hashlib.sha256(content).hexdigest()
    api.delete_repo("o/a")
    assert kept.exists() and api.get_paths_info("o/b", "w.bin")[0].size == 5000
    api.delete_repo("o/b")
    assert not kept.exists()
    stray = hub.root / "lfs" / "00" / "00" / ("0" * 64)
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    hub.kill()
    start_hub()
    assert not stray.exists()


def test_links_lead_the_way_the_caller_came(hub, hub_namespace):
    """Whoever calls it localhost, or comes through a proxy, gets links with that name."""
    endpoint = hub.endpoint.replace("127.0.0.1", "localhost")
    api = HfApi(endpoint, hub.token)
    assert api.create_repo(f"{hub_namespace}/m") == f"{endpoint}/{hub_namespace}/m"
    commit = api.create_commit(f"{hub_namespace}/m", [CommitOperationAdd("w.bin", os.urandom(99))], commit_message="x")
    assert commit.commit_url.startswith(endpoint)
    answer = patient_http.get(f"{endpoint}/api/models/{hub_namespace}/m/commits/main?limit=1", headers={"Authorization": f"Bearer {hub.token}"})
    assert answer.links["next"]["url"].startswith(endpoint)


@pytest.mark.slow
def test_two_gigabytes(start_hub, memory_of, tmp_path):
    """2 GB up and down keep the server under 300 MB."""
    hub = start_hub()
    roundtrip(hub, 2048 * MEGABYTE, tmp_path)
    assert memory_of(hub) < 300
