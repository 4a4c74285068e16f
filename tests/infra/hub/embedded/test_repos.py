"""Repositories of all three types: create, find, settings, move, delete."""

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, RepositoryNotFoundError

from tests import patient_http


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_create_shows_the_first_commit(hub, hub_namespace, kind):
    """.gitattributes in all, a card in Spaces; the url names the repo; the same name may be used once per type."""
    api, name = hub.api(), f"{hub_namespace}/thing"
    url = api.create_repo(name, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    assert (url.repo_id, url.repo_type, url.endpoint) == (name, kind, hub.endpoint)
    info = api.repo_info(name, repo_type=kind)
    assert {s.rfilename for s in info.siblings} == {".gitattributes"} | ({"README.md"} if kind == "space" else set())
    assert info.id == name and info.author == hub_namespace and not info.private and info.sha and info.last_modified and info.created_at
    if kind == "space":
        assert info.sdk == "gradio" and api.space_info(name).runtime is not None
    with pytest.raises(HfHubHTTPError) as taken:
        api.create_repo(name, repo_type=kind, space_sdk="gradio" if kind == "space" else None)
    assert taken.value.response.status_code == 409 and taken.value.response.json()["url"] == url
    others = {"model", "dataset", "space"} - {kind}
    for other in others:
        assert not api.repo_exists(name, repo_type=other)


def test_names_are_compared_without_case_and_shown_as_written(hub, hub_namespace):
    """`Ns/Model` is found as `ns/model` and can't be made twice."""
    api = hub.api()
    api.create_repo(f"{hub_namespace}/My.Model_1")
    assert api.model_info(f"{hub_namespace.upper()}/my.model_1").id == f"{hub_namespace}/My.Model_1"
    with pytest.raises(HfHubHTTPError):
        api.create_repo(f"{hub_namespace}/MY.MODEL_1")


def test_deleted_is_gone(hub, hub_namespace):
    """Info, files, refs: RepositoryNotFound; the name is free again and starts empty."""
    api, name = hub.api(), f"{hub_namespace}/m"
    api.create_repo(name)
    api.create_commit(name, [CommitOperationAdd("a", b"1")], commit_message="x")
    api.delete_repo(name)
    assert not api.repo_exists(name)
    for work in (lambda: api.list_repo_refs(name), lambda: api.hf_hub_download(name, "a"), lambda: api.delete_repo(name)):
        with pytest.raises(RepositoryNotFoundError):
            work()
    api.delete_repo(name, missing_ok=True)
    api.create_repo(name)
    assert not api.file_exists(name, "a")


def test_moves_leave_a_forwarding_address(hub, hub_namespace):
    """After two moves the first name still reads, writes and downloads; a new repo of an old name takes it over."""
    api = hub.api()
    a, b, c = (f"{hub_namespace}/{n}" for n in "abc")
    api.create_repo(a, private=True)
    api.create_commit(a, [CommitOperationAdd("f.txt", b"1"), CommitOperationAdd("w.bin", b"\0" * 99)], commit_message="x")
    api.move_repo(a, b)
    api.move_repo(b, c)
    for old in (a, b):
        assert api.model_info(old).id == c
        assert api.file_exists(old, "w.bin") and api.hf_hub_download(old, "w.bin")
        api.create_commit(
            old, [CommitOperationAdd(f"{old[-1]}.txt", b"1"), CommitOperationAdd(f"{old[-1]}.bin", old.encode())], commit_message="by the old name"
        )
    assert {"a.txt", "b.txt", "a.bin", "b.bin"} <= {s.rfilename for s in api.model_info(c).siblings}
    answer = patient_http.get(f"{hub.endpoint}/api/models/{a}", headers={"Authorization": f"Bearer {hub.token}"})
    assert (answer.status_code, answer.headers["location"]) == (307, f"/api/models/{c}")
    assert patient_http.get(f"{hub.endpoint}/api/models/{a}").status_code == 401  # the new name of a private repo is not told
    api.create_repo(a)
    assert api.model_info(a).id == a and api.model_info(b).id == c
    with pytest.raises(HfHubHTTPError) as taken:
        api.move_repo(c, a)
    assert taken.value.response.status_code == 409
    api.move_repo(c, b)
    assert api.model_info(c).id == b


def test_settings(hub, hub_namespace):
    """Visibility and gate change, each without the other."""
    api, name = hub.api(), f"{hub_namespace}/m"
    api.create_repo(name)
    api.update_repo_settings(name, private=True)
    assert api.model_info(name).private and not api.model_info(name).gated
    api.update_repo_settings(name, gated="auto")
    assert api.model_info(name).private and api.model_info(name).gated == "auto"
    api.update_repo_settings(name, private=False, gated=False)
    assert not api.model_info(name).private and not api.model_info(name).gated


def test_the_card_is_read(hub, hub_namespace):
    """cardData, tags, pipeline and library come from the front matter of README.md."""
    api, name = hub.api(), f"{hub_namespace}/m"
    api.create_repo(name)
    card = "---\nlicense: mit\ntags: [spaceport]\nlibrary_name: transformers\npipeline_tag: text-classification\ndatasets: [a/b]\n---\n# Hi\n"
    api.create_commit(name, [CommitOperationAdd("README.md", card.encode())], commit_message="card")
    info = api.model_info(name)
    assert info.card_data.license == "mit" and info.pipeline_tag == "text-classification" and info.library_name == "transformers"
    assert {"spaceport", "license:mit", "dataset:a/b", "transformers"} <= set(info.tags)
    assert [m.id for m in api.list_models(author=hub_namespace, filter="spaceport")] == [name]
    assert [m.id for m in api.list_models(author=hub_namespace, filter="other")] == []


def test_expand_and_lists(hub, hub_namespace):
    """expand brings only what was asked for; lists filter by author and words and come in pages."""
    api = hub.api()
    for number in range(5):
        api.create_repo(f"{hub_namespace}/d{number}", repo_type="dataset")
    info = api.dataset_info(f"{hub_namespace}/d0", expand=["sha", "private"])
    assert info.sha and info.private is False and info.siblings is None
    assert [d.id for d in api.list_datasets(author=hub_namespace)] == [f"{hub_namespace}/d{n}" for n in (4, 3, 2, 1, 0)]
    assert [d.id for d in api.list_datasets(author=hub_namespace, search=f"{hub_namespace[-3:]}/D3")] == [f"{hub_namespace}/d3"]
    assert len(list(api.list_datasets(author=hub_namespace, limit=2))) == 2


@pytest.mark.parametrize(
    "card", ["---\n: [\n---\n", "---\n- list\n---\n", "---\nlicense: {a: b}\n---\n", "---\ntags: [[1]]\n---\n", "---\nmodel-index: 3\n---\n"]
)
def test_a_bad_card_is_refused_before_anything_is_sent(hub, hub_namespace, card):
    """validate-yaml answers 400 with the reason."""
    name = f"{hub_namespace}/m"
    hub.api().create_repo(name)
    with pytest.raises((ValueError, BadRequestError), match=r"(?i)invalid|must be"):
        hub.api().create_commit(name, [CommitOperationAdd("README.md", card.encode())], commit_message="x")


def test_a_card_without_metadata_only_warns(hub, hub_namespace):
    """It is committed."""
    name = f"{hub_namespace}/m"
    hub.api().create_repo(name)
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        hub.api().create_commit(name, [CommitOperationAdd("README.md", b"# Hi")], commit_message="x")
    assert hub.api().file_exists(name, "README.md")


def test_rate_limits(start_hub):
    """When told to, the server answers 429 with the headers from which the client takes its pause, apart for each caller."""
    hub = start_hub(rate_limit=3, rate_window_seconds=40)
    codes = [patient_http.get(f"{hub.endpoint}/api/whoami-v2", headers={"Authorization": f"Bearer {hub.token}"}) for _ in range(5)]
    assert [c.status_code for c in codes] == [200, 200, 200, 429, 429]
    assert codes[0].headers["ratelimit"].startswith('"api";r=2;t=')
    assert codes[4].headers["ratelimit-policy"] == '"fixed window";"api";q=3;w=40'
    assert 0 < int(codes[4].headers["ratelimit"].partition("t=")[2]) <= 40
    with pytest.raises(HfHubHTTPError, match="you have reached your 'api' rate limit"):
        HfApi(hub.endpoint, hub.token).create_repo("o/m")
    assert patient_http.get(f"{hub.endpoint}/api/models").status_code == 200


def test_a_limited_client_waits_and_goes_on(start_hub):
    """http_backoff reads the headers: a commit that runs into the limit still ends well."""
    hub = start_hub()
    hub.api().create_repo("o/m")
    hub.stop()
    hub = start_hub(rate_limit=1, rate_window_seconds=2)
    hub.api().list_repo_files("o/m")
    assert list(hub.api().list_repo_tree("o/m"))
