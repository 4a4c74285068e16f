"""Who may do what: roles, scopes, organisations, private and gated repos."""

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tests import patient_http

USERS = """
default = "alice"

[users.alice]
tokens = [{ token = "hf_alice_write", role = "write", name = "laptop" }, { token = "hf_alice_read", role = "read" }]

[users.bob]
tokens = [{ token = "hf_bob_write", role = "write" }]

[users.carol]
tokens = [
    { token = "hf_carol_fine", role = "fine-grained", scopes = [
        { on = "acme/shared", may = ["read", "write"] },
        { on = "datasets/acme/rows", may = ["read"] },
    ] },
]

[users.dave]
tokens = [{ role = "write" }]

[organisations.acme]
visibility = "private"
members = { alice = "admin", carol = "write", dave = "read" }
"""


@pytest.fixture
def acme(start_hub):
    """A Hub with users, and an organisation with a private model, a second one and a private dataset."""
    hub = start_hub(users=USERS)
    api = hub.api()
    for name, kind in (("shared", "model"), ("other", "model"), ("rows", "dataset")):
        api.create_repo(f"acme/{name}", repo_type=kind)
        api.create_commit(f"acme/{name}", [CommitOperationAdd("w.bin", f"secret of {name}".encode())], commit_message="x", repo_type=kind)
    return hub


def status(work) -> int:
    """The status that refused something, or 200."""
    try:
        work()
    except HfHubHTTPError as error:
        return error.response.status_code
    return 200


def test_whoami_names_user_role_and_organisations(acme):
    """As clients and people read it."""
    me = HfApi(acme.endpoint, "hf_alice_write").whoami()
    assert (me["type"], me["name"], me["auth"]["accessToken"]["role"], me["auth"]["accessToken"]["displayName"]) == ("user", "alice", "write", "laptop")
    assert [(o["name"], o["roleInOrg"]) for o in me["orgs"]] == [("acme", "admin")]
    fine = HfApi(acme.endpoint, "hf_carol_fine").whoami()
    assert fine["auth"]["accessToken"]["role"] == "fineGrained"
    assert {s["entity"]["name"] for s in fine["auth"]["accessToken"]["fineGrained"]["scoped"]} == {"acme/shared", "datasets/acme/rows"}


def test_a_bad_token_is_401_everywhere(acme):
    """Even for what anybody may read, and in words that the client knows."""
    HfApi(acme.endpoint, "hf_bob_write").create_repo("bob/open")
    for header in ("Bearer hf_wrong", "Bearer", "Basic YTpi", "hf_alice_write", "Bearer hf_alice_write x"):
        answer = patient_http.get(f"{acme.endpoint}/api/models/bob/open", headers={"Authorization": header})
        assert answer.status_code == 401, header
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(acme.endpoint, "hf_wrong").whoami()
    assert patient_http.get(f"{acme.endpoint}/api/whoami-v2").status_code == 401


def test_private_repos_do_not_exist_for_others(acme):
    """404 for another user, 401 for nobody; the same answers as for a repo that really isn't there."""
    for repo in ("acme/shared", "acme/no-such-thing"):
        for token, expected in (("hf_bob_write", 404), (False, 401)):
            api = HfApi(acme.endpoint, token)
            works = (
                lambda api=api, repo=repo: api.model_info(repo),
                lambda api=api, repo=repo: list(api.list_repo_tree(repo)),
                lambda api=api, repo=repo: api.get_hf_file_metadata(url=f"{acme.endpoint}/{repo}/resolve/main/w.bin"),
                lambda api=api, repo=repo: api.list_repo_refs(repo),
                lambda api=api, repo=repo: api.create_branch(repo, branch="b"),
            )
            for work in works:
                with pytest.raises(RepositoryNotFoundError) as hidden:
                    work()
                assert hidden.value.response.status_code == expected
    assert [m.id for m in HfApi(acme.endpoint, "hf_bob_write").list_models()] == []
    assert {m.id for m in acme.api().list_models()} == {"acme/shared", "acme/other"}


@pytest.mark.parametrize(
    ("token", "shared", "other", "rows", "create"),
    [
        ("hf_alice_write", "write", "write", "write", 200),
        ("hf_alice_read", "read", "read", "read", 403),
        ("hf_carol_fine", "write", "hidden", "read", 403),
        ("hf_bob_write", "hidden", "hidden", "hidden", 403),
    ],
)
def test_roles(acme, token, shared, other, rows, create):
    """What each token may read and write."""
    api = HfApi(acme.endpoint, token)
    for name, kind, may in (("acme/shared", "model", shared), ("acme/other", "model", other), ("acme/rows", "dataset", rows)):
        reads, writes = {"write": (200, 200), "read": (200, 403), "hidden": (404, 404)}[may]
        assert status(lambda name=name, kind=kind: api.repo_info(name, repo_type=kind)) == reads, name
        operation = [CommitOperationAdd("by.txt", token.encode())]
        assert status(lambda name=name, kind=kind, operation=operation: api.create_commit(name, operation, commit_message="x", repo_type=kind)) == writes, name
        assert status(lambda name=name, kind=kind: api.create_tag(name, tag="t", repo_type=kind)) == writes, name
        assert status(lambda name=name, kind=kind: api.update_repo_settings(name, private=True, repo_type=kind)) == writes, name
        assert status(lambda name=name, kind=kind: api.auth_check(name, repo_type=kind, write=True)) == writes, name
    assert status(lambda: api.create_repo("acme/new")) == create


def test_a_member_with_read_only_reads(acme):
    """A read member's write token doesn't write."""
    import json

    dave = HfApi(acme.endpoint, json.loads((acme.root / "tokens.json").read_text())["dave/token-1"])
    dave.model_info("acme/shared")
    assert status(lambda: dave.create_commit("acme/shared", [CommitOperationAdd("a", b"1")], commit_message="x")) == 403
    assert status(lambda: dave.create_repo("acme/mine")) == 403
    assert status(lambda: dave.create_repo("dave/mine")) == 200


def test_nobody_creates_in_foreign_or_unknown_namespaces(acme):
    """With a users file only its users and organisations are namespaces."""
    bob = HfApi(acme.endpoint, "hf_bob_write")
    for name in ("alice/x", "acme/x", "nobody/x"):
        assert status(lambda name=name: bob.create_repo(name)) == 403
    assert bob.create_repo("mine").repo_id == "bob/mine"
    for target in ("alice/mine", "acme/mine", "nobody/mine"):
        assert status(lambda target=target: bob.move_repo("bob/mine", target)) == 403


def test_an_organisation_decides_how_new_repos_are_seen(acme):
    """acme's are private unless the maker says public; users' are public."""
    api = acme.api()
    assert api.model_info("acme/shared").private
    api.create_repo("acme/open", private=False)
    api.create_repo("alice/own")
    assert not api.model_info("acme/open").private and not api.model_info("alice/own").private
    assert HfApi(acme.endpoint, False).model_info("acme/open").id == "acme/open"


def test_a_hash_is_no_key(acme):
    """Knowing a private file's SHA-256 gets it neither committed into one's own repo nor skipped on upload."""
    bob = HfApi(acme.endpoint, "hf_bob_write")
    bob.create_repo("bob/thief")
    lfs = next(s.lfs for s in acme.api().model_info("acme/shared", files_metadata=True).siblings if s.lfs)
    auth = {"Authorization": "Bearer hf_bob_write"}
    body = {"operation": "upload", "transfers": ["basic"], "objects": [{"oid": lfs.sha256, "size": lfs.size}]}
    for operation, key in (("upload", "actions"), ("download", "error")):
        answer = patient_http.post(f"{acme.endpoint}/bob/thief.git/info/lfs/objects/batch", json=body | {"operation": operation}, headers=auth).json()
        assert key in answer["objects"][0]
    lines = '{"key":"header","value":{"summary":"x"}}\n{"key":"lfsFile","value":{"path":"w.bin","algo":"sha256","oid":"OID"}}\n'.replace("OID", lfs.sha256)
    assert patient_http.post(f"{acme.endpoint}/api/models/bob/thief/commit/main", content=lines, headers=auth).status_code == 400
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{lfs.sha256}\nsize {lfs.size}\n".encode()
    assert status(lambda: bob.create_commit("bob/thief", [CommitOperationAdd("p", pointer)], commit_message="x")) == 400
    carol = HfApi(acme.endpoint, "hf_carol_fine")
    lines = lines.replace("w.bin", "again.bin")
    answer = patient_http.post(f"{acme.endpoint}/api/models/acme/shared/commit/main", content=lines, headers={"Authorization": "Bearer hf_carol_fine"})
    assert answer.status_code == 200 and carol.file_exists("acme/shared", "again.bin")


def test_gated_repos(acme, tmp_path):
    """Their files are for members and for those who were let in; that they exist is known."""
    api, bob = acme.api(), HfApi(acme.endpoint, "hf_bob_write")
    api.update_repo_settings("acme/shared", private=False, gated="manual")
    assert bob.model_info("acme/shared").gated == "manual"
    for token, expected in (("hf_bob_write", 403), (False, 401)):
        with pytest.raises(GatedRepoError) as closed:
            HfApi(acme.endpoint, token).hf_hub_download("acme/shared", "w.bin", cache_dir=tmp_path)
        assert closed.value.response.status_code == expected
        with pytest.raises(GatedRepoError):
            HfApi(acme.endpoint, token).auth_check("acme/shared")
    assert api.hf_hub_download("acme/shared", "w.bin", cache_dir=tmp_path)
    api.grant_access("acme/shared", "bob")
    assert [r.username for r in api.list_accepted_access_requests("acme/shared")] == ["bob"]
    assert bob.hf_hub_download("acme/shared", "w.bin", cache_dir=tmp_path)
    api.reject_access_request("acme/shared", "bob", rejection_reason="no")
    assert status(lambda: bob.auth_check("acme/shared")) == 403
    api.update_repo_settings("acme/shared", gated=False)
    bob.auth_check("acme/shared")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[users", "users.toml"),
        ("", "Name at least one user"),
        ("default = 'x'\n[users.a]\ntokens = [{role = 'write'}]", "default = 'x' is none of the users"),
        ("[users.a]\ntokens = [{role = 'root'}]", "role 'root'"),
        ("[users.a]\ntokens = [{role = 'read', colour = 'red'}]", "colour"),
        ("[users.a]\ntokens = [{role = 'fine-grained', scopes = [{may = ['read']}]}]", "a scope is"),
        ("[users.a]\ntokens = [{role = 'write'}]\n[organisations.o]\nmembers = {b = 'read'}", "b = 'read'"),
        ("[users.a]\ntokens = [{role = 'write'}]\n[organisations.o]\nvisibility = 'secret'", "organisations.o"),
        ("[users.a]", "has no token"),
    ],
)
def test_a_bad_users_file_is_named(start_hub, text, says):
    """The server doesn't start, and says in one line which entry is wrong."""
    with pytest.raises(Exception, match=r"The embedded Hub did not start") as refused:
        start_hub(users=text)
    assert says in str(refused.value)
