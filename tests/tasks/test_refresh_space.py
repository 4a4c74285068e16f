"""A refresh ends with the wanted revision proved by the live app, or with the old one proved and an error."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd
from pydantic import SecretStr

from infra.errors import BadInput, Conflict, Unhealthy
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.spaces.templates import TEMPLATES
from infra.revisions import DatasetRevision, ModelRevision, Repo
from tasks.refresh_space import ProbeRow, SpaceConfig, SpaceRefresh, check_loadable, refresh_space, space_record
from tests import patient_http
from tests.eventually import eventually

# A team's own app that keeps the contract of the template: fast to start, and told by the revision's first letter how to misbehave.
OWN_APP = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
PIN = json.load(open(".spaceport/pin.json"))
KIND = PIN["revision"][0]
if KIND == "d": raise SystemExit("this revision can't be loaded")
SCORES = {"no": 0.25 + (KIND == "b") * 0.001, "yes": 0.75 - (KIND == "b") * 0.001}
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/revision": self.send(json.dumps({**PIN, "space": os.environ["SPACE_COMMIT_SHA"]}))
        elif self.path.startswith("/gradio_api/call/predict/"): self.send("event: complete\\ndata: " + json.dumps([SCORES]) + "\\n\\n")
        else: self.send("hello")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.send('{"event_id": "1"}')
    def send(self, text):
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
ThreadingHTTPServer((os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"])), Answer).serve_forever()
"""
ROWS = [ProbeRow(text="a text", expected={"no": 0.25, "yes": 0.75})]
FIRST, SECOND, DEAD, BENT = "1" * 40, "2" * 40, "d" * 40, "b" * 40


class Team:
    """A namespace with a model, and a Space whose app the team wrote itself."""

    def __init__(self, hub: EmbeddedHub, namespace: str) -> None:
        self.hub, self.client, self.api = hub, HubClient(hub.api()), hub.api()
        self.model_id, self.space_id = f"{namespace}/model", f"{namespace}/space"
        self.api.create_repo(self.model_id, private=False)
        self.api.create_repo(self.space_id, repo_type="space", space_sdk="gradio", private=True)
        self.commit(app__py=OWN_APP.encode())

    def refresh(self, revision: str, rows: list[ProbeRow] = ROWS, client: HubClient | None = None, **config: Any) -> SpaceRefresh:
        wanted = SpaceConfig(repo_id=self.space_id, **{"startup_timeout_seconds": 90, **config})
        return refresh_space(ModelRevision(repo_id=self.model_id, sha=revision), rows, wanted, client or self.client, poll_seconds=0.05, settle_seconds=2)

    def commit(self, **files: bytes) -> str:
        operations = [CommitOperationAdd(path_in_repo=path.replace("__", "."), path_or_fileobj=data) for path, data in files.items()]
        return str(self.api.create_commit(self.space_id, operations, repo_type="space", commit_message="by hand").oid)

    def commits(self) -> list[str]:
        return [commit.title for commit in self.api.list_repo_commits(self.space_id, repo_type="space")]

    def answer(self) -> dict[str, str]:
        return patient_http.get(f"{self.api.space_info(self.space_id).host}/revision").raise_for_status().json()

    def file(self, path: str) -> bytes | None:
        head = self.client.head(self.refresh_repo)
        return self.client.read_bytes(self.refresh_repo.at(str(head)), path)

    @property
    def refresh_repo(self) -> Repo:
        return Repo(repo_type="space", repo_id=self.space_id)


# The same app in a Docker Space: its own Dockerfile, and the prediction route of that template.
DOCKERFILE = 'FROM python:3.11-slim\nCOPY . /code\nWORKDIR /code\nEXPOSE 7860\nCMD ["python", "app.py", "0.0.0.0", "7860"]\n'
DOCKER_APP = (
    OWN_APP.replace('self.send(\'{"event_id": "1"}\')', 'self.send(json.dumps(SCORES)) if self.path == "/predict" else self.send_error(404)')
    .replace('os.environ["GRADIO_SERVER_NAME"]', "sys.argv[1]")
    .replace('os.environ["GRADIO_SERVER_PORT"]', "sys.argv[2]")
    .replace("import json, os", "import json, os, sys")
)


@pytest.fixture
def team(hub: EmbeddedHub, hub_namespace: str) -> Team:
    return Team(hub, hub_namespace)


def test_a_refresh_ends_with_the_app_serving_the_revision(team: Team) -> None:
    """Afterwards the app itself names the model, its revision and the commit of the Space that the refresh returned."""
    done = team.refresh(FIRST)
    assert done.outcome == "published"
    assert team.answer() == {"model": team.model_id, "revision": FIRST, "space": done.revision.sha}
    assert patient_http.get(done.url).text == "hello"


def test_a_second_refresh_makes_no_commit_and_still_asks_the_app(team: Team) -> None:
    """The same inputs find the work done; but done is said only of an app that answers."""
    first = team.refresh(FIRST)
    before = team.commits()
    second = team.refresh(FIRST)
    assert (second.outcome, second.revision, second.key) == ("reused", first.revision, first.key)
    assert team.commits() == before
    with pytest.raises(Unhealthy, match="answers otherwise"):
        team.refresh(FIRST, [ProbeRow(text="x", expected={"no": 0.5, "yes": 0.5})])
    assert team.commits() == before


def test_there_and_back_again_is_three_moves(team: Team) -> None:
    """A Space is a pointer: its head decides what is done, not its history."""
    served = []
    for revision in (FIRST, SECOND, FIRST):
        assert team.refresh(revision).outcome == "published"
        served.append(team.answer()["revision"])
    assert served == [FIRST, SECOND, FIRST]


@pytest.mark.parametrize(("broken", "said"), [(DEAD, "this revision can't be loaded"), (BENT, "answers otherwise than")])
def test_a_revision_that_does_not_come_up_leaves_the_old_one_serving(team: Team, broken: str, said: str) -> None:
    """The old pin is back in one commit and proved, and the error holds the reason: the app's log, or the score that differs."""
    team.refresh(FIRST)
    before = team.commits()
    with pytest.raises(Unhealthy, match=r"promoted, Space behind: .*serves again, proved") as failure:
        team.refresh(broken)
    assert said in str(failure.value)
    assert team.answer()["revision"] == FIRST
    assert len(team.commits()) == len(before) + 2
    assert json.loads(team.file(".spaceport/pin.json") or b"")["revision"] == FIRST
    assert team.refresh(FIRST).outcome == "reused"
    assert team.refresh(SECOND).outcome == "published"


@pytest.mark.parametrize(("broken", "said"), [(DEAD, "this revision can't be loaded"), (BENT, "answers otherwise than")])
def test_a_docker_space_is_proved_and_put_back_as_any_other(team: Team, broken: str, said: str) -> None:
    """A Docker Space with the team's own Dockerfile is asked at its own routes; a revision that doesn't come up there leaves the old one serving, too."""
    team.commit(app__py=DOCKER_APP.encode(), Dockerfile=DOCKERFILE.encode(), README__md=b"---\nsdk: docker\n---\n")
    done = team.refresh(FIRST, template="docker")
    assert (done.outcome, set(done.kept)) == ("published", {*TEMPLATES["docker"].files()})
    with pytest.raises(Unhealthy, match=rf"(?s)promoted, Space behind: .*serves again, proved.*{said}"):
        team.refresh(broken, template="docker")
    assert team.answer()["revision"] == FIRST


def test_a_first_revision_that_does_not_come_up_says_that_nothing_serves(team: Team) -> None:
    """Without an earlier revision there is nothing to go back to, and the error says so."""
    with pytest.raises(Unhealthy, match=r"no earlier revision to go back to.*the app ended"):
        team.refresh(DEAD)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"requirements__txt": b"surely-not-installed"}, "BUILD_ERROR.*surely-not-installed is not installed"),
        ({"README__md": b"---\nsdk: gradio\napp_file: ../app.py\n---\n"}, "CONFIG_ERROR.*leaves the repository"),
    ],
)
@pytest.mark.filterwarnings("ignore:Warnings while validating metadata")
def test_each_stage_of_failure_is_named_with_its_log(team: Team, files: dict[str, bytes], said: str) -> None:
    """What the team's own files break is told with the stage and the log of the build."""
    team.commit(**files)
    with pytest.raises(Unhealthy, match=said):
        team.refresh(FIRST)


def test_a_paused_space_is_left_alone(team: Team) -> None:
    """A person paused it: nothing is published and the error says what to do."""
    team.refresh(FIRST)
    team.api.pause_space(team.space_id)
    before = team.commits()
    with pytest.raises(Unhealthy, match="is paused"):
        team.refresh(SECOND)
    assert team.commits() == before


def test_a_space_in_dev_mode_is_refused(team: Team) -> None:
    """In dev mode a commit doesn't show, so nothing is published."""
    team.api.enable_space_dev_mode(team.space_id)
    before = team.commits()
    with pytest.raises(BadInput, match="dev mode"):
        team.refresh(FIRST)
    assert team.commits() == before


def test_a_sleeping_space_is_woken(team: Team) -> None:
    """A proof of a sleeping Space visits it and waits for its start."""
    team.refresh(FIRST)
    team.api.request_space_hardware(team.space_id, "cpu-upgrade", sleep_time=1)
    eventually(lambda: team.api.get_space_runtime(team.space_id).stage == "STOPPED")
    assert team.refresh(FIRST).outcome == "reused"


def test_an_app_that_crashed_since_is_started_once_more(team: Team) -> None:
    """Nothing is to be published, but what should serve doesn't: one restart, then the proof."""
    team.commit(app__py=OWN_APP.replace('else: self.send("hello")', 'else: self.path == "/crash" and os._exit(1); self.send("hello")').encode())
    done = team.refresh(FIRST)
    with pytest.raises(httpx2.HTTPError):
        patient_http.get(done.url + "/crash").raise_for_status()
    eventually(lambda: team.api.get_space_runtime(team.space_id).stage == "RUNTIME_ERROR")
    assert team.refresh(FIRST).outcome == "reused"
    assert team.answer()["revision"] == FIRST


def test_what_people_put_into_the_space_stays(team: Team) -> None:
    """A team's own app and card are never written; a commit of theirs on top of the pin doesn't undo it."""
    team.commit(README__md=b"---\nsdk: gradio\n---\nOur own words.\n", notes__txt=b"keep")
    done = team.refresh(FIRST)
    assert done.kept == ("README.md", "app.py", "requirements.txt", "served.py")
    assert (team.file("app.py"), team.file("notes.txt")) == (OWN_APP.encode(), b"keep")
    on_top = team.commit(notes__txt=b"more")
    again = team.refresh(FIRST)
    assert (again.outcome, again.revision.sha) == ("reused", on_top)
    team.refresh(SECOND)
    assert (team.file("app.py"), team.file("requirements.txt")) == (OWN_APP.encode(), None)


def test_a_model_that_the_template_cant_load_is_told_of_before_it_goes_live(team: Team) -> None:
    """Without a config.json there is nothing for the template's app to load; a page loads nothing, and a team's own app is the team's."""
    api, model = team.api, ModelRevision(repo_id=team.model_id, sha=str(team.api.model_info(team.model_id).sha))
    with pytest.raises(BadInput, match=r'space\.template = "static"'):
        check_loadable(model, SpaceConfig(repo_id=f"{team.space_id}-none-yet"), team.client)
    check_loadable(model, SpaceConfig(repo_id=f"{team.space_id}-none-yet", template="static"), team.client)
    check_loadable(model, SpaceConfig(repo_id=team.space_id), team.client)
    team.refresh(FIRST)
    check_loadable(model, SpaceConfig(repo_id=team.space_id), team.client)
    done = api.upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id=team.model_id)
    check_loadable(ModelRevision(repo_id=team.model_id, sha=done.oid), SpaceConfig(repo_id=f"{team.space_id}-none-yet"), team.client)


def test_a_pin_changed_by_hand_is_put_right(team: Team) -> None:
    """The key alone is not enough: the head's pin must be the wanted one."""
    team.refresh(FIRST)
    team.commit(**{".spaceport/pin__json": json.dumps({"model": team.model_id, "revision": SECOND}).encode()})
    assert team.refresh(FIRST, startup_timeout_seconds=6).outcome == "published"  # so long it is taken for another refresh that is under way
    assert team.answer()["revision"] == FIRST


def test_somebody_else_moving_the_space_is_a_conflict(team: Team) -> None:
    """While one refresh waits, another pins something else: the first one ends as a conflict and undoes nothing."""
    team.refresh(FIRST)
    team.commit(app__py=OWN_APP.replace("PIN =", 'import time; time.sleep(600 * (b\'"2\' in open(".spaceport/pin.json", "rb").read()))\nPIN =', 1).encode())
    rival = json.dumps({"model": team.model_id, "revision": "3" * 40}).encode()

    def interfere() -> None:
        eventually(lambda: SECOND.encode() in (team.file(".spaceport/pin.json") or b""))
        team.commit(**{".spaceport/pin__json": rival})

    thread = threading.Thread(target=interfere)
    thread.start()
    with pytest.raises(Conflict, match="Somebody else moved it"):
        team.refresh(SECOND)
    thread.join()
    assert team.file(".spaceport/pin.json") == rival


def test_a_static_space_shows_the_revision_and_its_numbers(team: Team) -> None:
    """The page of the other template names the pinned revision and the numbers of its card, with what people wrote escaped."""
    data = {"dataset": {"name": "<b>rows</b>", "type": "rows"}, "metrics": [{"type": "accuracy", "value": 0.8337}], "task": {"type": "text-classification"}}
    card = "---\n" + json.dumps({"model-index": [{"name": "model", "results": [data]}]}) + "\n---\n"
    sha = team.api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id=team.model_id).oid
    team.space_id += "-page"
    for title in ("A <page>", "Another"):
        done = team.refresh(str(sha), template="static", title=title)
        assert done.outcome == "published"
        assert patient_http.get(done.url + "/revision.json").json() == {"model": team.model_id, "revision": sha, "space": None}
        page = patient_http.get(done.url).text
        assert title.replace("<page>", "&lt;page&gt;") in page
        assert "&lt;b&gt;rows&lt;/b&gt;" in page
        assert "0.8337" in page
    assert team.refresh(str(sha), template="static", title=title).outcome == "reused"


def test_the_key_is_the_same_on_any_hub(team: Team) -> None:
    """Another address of the Hub is no reason to publish again; another model, title, example or dataset is."""
    model, config = ModelRevision(repo_id=team.model_id, sha=FIRST), SpaceConfig(repo_id=team.space_id)
    key = space_record(model, config, "http://127.0.0.1:1").key
    assert space_record(model, config.model_copy(update={"startup_timeout_seconds": 5}), "https://huggingface.co").key == key
    others = [config.model_copy(update=change) for change in ({"title": "x"}, {"examples": ("x",)}, {"template": "static"})]
    keys = {space_record(model, other, "").key for other in others} | {space_record(model, config, "", DatasetRevision(repo_id="a/b", sha=SECOND)).key}
    assert len({key, *keys}) == 5


def test_a_private_model_gives_its_space_a_read_only_token(tmp_path: Path) -> None:
    """Without a token it is refused before anything is published; a writing token is refused; a reading one reaches the app as a secret."""
    users = tmp_path / "users.toml"
    users.write_text('[users.ann]\ntokens = [{ token = "hf_write_one", role = "write" }, { token = "hf_read_one", role = "read" }]\n')
    with EmbeddedHub.start(tmp_path / "hub", users=users) as hub:
        team = Team(hub, "ann")
        team.api.update_repo_settings(team.model_id, visibility="private")
        model, config = ModelRevision(repo_id=team.model_id, sha=FIRST), SpaceConfig(repo_id=team.space_id, startup_timeout_seconds=30)
        before = team.commits()
        for token, said in ((None, "is private"), (SecretStr("hf_write_one"), "may write")):
            with pytest.raises(BadInput, match=said):
                refresh_space(model, ROWS, config, team.client, space_token=token, poll_seconds=0.05)
        assert team.commits() == before
        refresh_space(model, ROWS, config, team.client, space_token=SecretStr("hf_read_one"), poll_seconds=0.05)
        secret = team.api.get_space_secrets(team.space_id)["HF_TOKEN"]
        assert "read-only" in (secret.description or "")
        refresh_space(model, ROWS, config, team.client, poll_seconds=0.05)
        assert team.api.get_space_secrets(team.space_id)["HF_TOKEN"].updated_at == secret.updated_at


def test_an_own_app_without_the_route_is_told_what_it_lacks(team: Team) -> None:
    """An app that runs but never names its revision is not waited for until the time limit."""
    team.commit(app__py=OWN_APP.replace('"/revision"', '"/nothing"').encode())
    with pytest.raises(Unhealthy, match="GET /revision gives no JSON object"):
        team.refresh(FIRST)


class Interrupted(HubClient):
    """A client that something happens to once, between its look at the page's file and the commit."""

    def __init__(self, api: Any, happens: Callable[[], object]) -> None:
        super().__init__(api)
        self.happens: Callable[[], object] | None = happens

    def read_bytes(self, revision: Any, path: str) -> bytes | None:
        found, happens = super().read_bytes(revision, path), self.happens
        if path == "README.md" and happens and revision.repo_type == "space":
            self.happens = None
            happens()
        return found


def test_an_edit_by_a_person_while_the_pin_is_written_is_given_way_to(team: Team) -> None:
    """The refresh goes on top of it, and the edit stays."""
    client = Interrupted(team.api, lambda: team.commit(notes__md=b"by a person"))
    done = team.refresh(FIRST, client=client)
    assert client.happens is None and done.outcome == "published" and team.file("notes.md") == b"by a person" and team.answer()["revision"] == FIRST


def test_another_pin_while_ours_is_written_is_waited_for(team: Team) -> None:
    """Two refreshes at once: the one that comes second sees the other one's pin proved, and goes after it."""
    client = Interrupted(team.api, lambda: team.refresh(SECOND))
    done = team.refresh(FIRST, client=client)
    assert done.outcome == "published" and team.answer()["revision"] == FIRST
    assert [title for title in team.commits() if title.startswith("Serve")] == [f"Serve {team.model_id}@{sha[:8]}" for sha in (FIRST, SECOND)]
