"""Spaces of the embedded Hub really run: stages, addresses, logs, settings, and nothing outlives the hub."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil
import pytest
from huggingface_hub import CommitOperationAdd

from infra.hub.embedded.process import EmbeddedHub
from infra.hub.embedded.spaces_runtime import SpaceRuntime
from tests import patient_http
from tests.eventually import eventually
from tests.processes import alive

APP = """
import json, os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
SAYS, SLOW = {says!r}, {slow}
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"says": SAYS, "pid": os.getpid(), "environment": dict(os.environ)}}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
        if self.path == "/die": os._exit(3)
    def log_message(self, *arguments): pass
print("this is", SAYS)
time.sleep(SLOW)
ThreadingHTTPServer((os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"])), Answer).serve_forever()
"""
CARD = "---\nsdk: {sdk}\n---\n"


def app(says: str, slow: float = 0) -> bytes:
    return APP.format(says=says, slow=slow).encode()


def parent() -> bytes:
    """An app that starts a process of its own and logs its id."""
    return app("parent").replace(b"print(", b"CHILD = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\nprint(CHILD.pid,", 1)


class Space:
    """A Space as its owner sees it."""

    def __init__(self, hub: EmbeddedHub, repo_id: str, sdk: str = "gradio") -> None:
        self.api, self.repo_id = hub.api(), repo_id
        self.api.create_repo(repo_id, repo_type="space", space_sdk=sdk, private=True)
        self.url = str(self.api.space_info(repo_id).host)

    def commit(self, **files: bytes) -> str:
        operations = [CommitOperationAdd(path_in_repo=path.replace("__", "."), path_or_fileobj=data) for path, data in files.items()]
        return str(self.api.create_commit(self.repo_id, operations, repo_type="space", commit_message="change").oid)

    @property
    def raw(self) -> dict:
        return self.api.get_space_runtime(self.repo_id).raw

    def settled(self, stage: str = "RUNNING") -> dict:
        """Wait until no build or start is in progress, and expect `stage`."""
        raw = eventually(lambda: (found := self.raw) and not found["stage"].endswith(("BUILDING", "APP_STARTING")) and found)
        assert raw["stage"] == stage, (raw, self.log(), self.log(build=True))
        return raw

    def ask(self, path: str = "/") -> dict:
        return patient_http.get(self.url + path).raise_for_status().json()

    def child(self) -> int:
        """The process that the app of `parent` started."""
        return int(next(line for line in self.log().splitlines() if "this is" in line).split()[0])

    def log(self, build: bool = False) -> str:
        return "".join(self.api.fetch_space_logs(self.repo_id, build=build))


@pytest.fixture
def space(hub: EmbeddedHub, hub_namespace: str) -> Space:
    return Space(hub, f"{hub_namespace}/app")


def test_a_commit_is_served_at_the_address_that_the_info_gives(space: Space) -> None:
    """A commit to main runs; the runtime names it; the app sees its own name and none of the hub's secrets."""
    assert space.settled("NO_APP_FILE")["hardware"]["current"] is None
    sha = space.commit(app__py=app("one"))
    assert space.settled()["sha"] == sha
    answer = space.ask()
    assert answer["says"] == "one"
    environment = answer["environment"]
    assert environment["SPACE_ID"] == space.repo_id
    assert environment["SPACE_HOST"] == space.url.removeprefix("http://")
    assert environment["HF_ENDPOINT"] == space.api.endpoint
    assert not [name for name, value in environment.items() if value == space.api.token or name.startswith(("AWS_", "PREFECT_"))]
    assert environment["HOME"] != os.environ.get("HOME")
    assert "this is one" in space.log()
    assert sha in space.log(build=True)


def test_the_old_app_serves_until_the_new_one_answers(space: Space) -> None:
    """During a build and a slow start every visitor is answered, first by the old app, then by the new one, at the same address."""
    space.commit(app__py=app("old"))
    old_sha = space.settled()["sha"]
    heard, stages, stop = [], [], threading.Event()

    def listen() -> None:
        while not stop.wait(0.02):
            heard.append(space.ask()["says"])

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(listen)
        try:
            eventually(lambda: heard)
            space.commit(app__py=app("new", slow=0.7))
            eventually(lambda: stages.append((raw := space.raw)["stage"] + raw["sha"]) or (raw["stage"] == "RUNNING" and raw["sha"] != old_sha))
            eventually(lambda: "new" in heard or listening.done())
        finally:
            stop.set()
        listening.result()  # a visitor who wasn't answered says why
    assert heard == sorted(heard, reverse=True), "old, then new, and never back"
    assert {heard[0], heard[-1]} == {"old", "new"}
    assert f"RUNNING_APP_STARTING{old_sha}" in stages


async def test_the_old_app_can_be_gone_during_the_build(tmp_path: Path) -> None:
    """The other behaviour of the real service: from the commit on, until the new app answers, a visitor gets 503."""
    contents = {"1" * 40: app("old"), "2" * 40: app("new", slow=0.5)}

    def checkout(sha: str, folder: Path) -> None:
        (folder / "README.md").write_text(CARD.format(sdk="gradio"))
        (folder / "app.py").write_bytes(contents[sha])

    space = SpaceRuntime("team/app", tmp_path, "http://127.0.0.1:9", checkout, mode="replace")
    await space.open()
    async with httpx2.AsyncClient(timeout=patient_http.SECONDS) as visitor, asyncio.timeout(120):
        await space.deploy("1" * 40)
        assert [answer async for answer in answers_until_running(space, visitor)][-1].json()["says"] == "old"
        await space.deploy("2" * 40)
        *before, last = [answer async for answer in answers_until_running(space, visitor)]
        assert {answer.status_code for answer in before if "old" not in answer.text} == {503}
        assert last.json()["says"] == "new"
    await space.close()


async def test_a_build_that_follows_at_once_keeps_its_files(tmp_path: Path) -> None:
    """The files of the app before are deleted when it has ended, maybe in the middle of the next checkout: that one's stay."""

    def checkout(sha: str, folder: Path) -> None:
        (folder / "README.md").write_text(CARD.format(sdk="gradio"))
        deadline = time.monotonic() + 20
        while sha == "3" * 40 and any(folder.parent.glob("1" * 40 + "*")) and time.monotonic() < deadline:  # it may be gone before we look
            time.sleep(0.01)
        (folder / "app.py").write_bytes(app(f"number {sha[0]}"))

    space = SpaceRuntime("team/app", tmp_path, "http://127.0.0.1:9", checkout)
    await space.open()
    try:
        for number in "123":
            await space.deploy(number * 40)
            async with asyncio.timeout(60):
                while space.served_sha != number * 40 and not space.error:  # noqa: ASYNC110 - the very moment is what matters
                    await asyncio.sleep(0)
            assert (space.stage, space.error) == ("RUNNING", "")
        kept = [build.name[:40] for build in (tmp_path / "builds").iterdir()]
        assert "1" * 40 not in kept and "3" * 40 in kept
    finally:
        await space.close()


async def answers_until_running(space: SpaceRuntime, visitor: httpx2.AsyncClient) -> AsyncIterator[httpx2.Response]:
    running = False
    while not running:
        running = space.stage == "RUNNING"
        yield await visitor.get(space.address)


@pytest.mark.parametrize(
    ("files", "stage", "said"),
    [
        ({"app__py": b"print('about to fail')\nraise SystemExit(7)"}, "RUNTIME_ERROR", "about to fail"),
        ({"app__py": b"import surely_not_installed"}, "RUNTIME_ERROR", "ModuleNotFoundError"),
        ({"app__py": b"", "requirements__txt": b"surely-not-installed>=1\n"}, "BUILD_ERROR", "surely-not-installed is not installed"),
        ({"app__py": b"", "requirements__txt": b"httpx2<0.1  # too old\n"}, "BUILD_ERROR", "httpx2<0.1 is asked for"),
        ({"app__py": b"", "README__md": b"---\nsdk: gradio\napp_file: ../../app.py\n---\n"}, "CONFIG_ERROR", "leaves the repository"),
        ({"app__py": b"", "README__md": b"no front matter"}, "CONFIG_ERROR", "no front matter"),
        ({"other__py": b""}, "NO_APP_FILE", "app.py is not in the repository"),
    ],
)
@pytest.mark.filterwarnings("ignore:Warnings while validating metadata")
def test_a_broken_app_ends_in_its_stage_with_its_log(space: Space, files: dict, stage: str, said: str) -> None:
    """What is wrong is told by the stage, by the log that belongs to it, and by the page that a visitor sees."""
    space.commit(**files)
    assert space.settled(stage)["errorMessage"]
    assert said in space.log(build=stage != "RUNTIME_ERROR")
    page = patient_http.get(space.url)
    assert page.status_code == 503
    assert stage in page.text


def test_a_broken_commit_leaves_the_old_app_serving(space: Space) -> None:
    """The stage tells of the failure while the address still gives the last good app."""
    good = space.commit(app__py=app("good"))
    space.settled()
    space.commit(app__py=b"raise SystemExit(1)")
    assert space.settled("RUNTIME_ERROR")["sha"] == good
    assert space.ask()["says"] == "good"
    better = space.commit(app__py=app("better"))
    assert space.settled()["sha"] == better
    assert space.ask()["says"] == "better"


def test_an_app_that_ends_later_is_a_runtime_error(space: Space) -> None:
    """A crash after a good start shows with its exit code and leaves no process behind; a restart cures it."""
    space.commit(app__py=parent())
    space.settled()
    child = space.child()
    with pytest.raises(httpx2.HTTPError):
        for _ in range(50):  # the answer may still come through before the end
            space.ask("/die")
    assert "Exit code: 3" in eventually(lambda: space.raw.get("errorMessage"))
    eventually(lambda: not alive(child))
    space.api.restart_space(space.repo_id)
    space.settled()
    assert space.ask()["says"] == "parent"


def test_restart_is_the_same_commit_in_a_new_process(space: Space) -> None:
    """Restart and factory restart both end the process and serve the same commit."""
    sha = space.commit(app__py=app("same"))
    space.settled()
    pids = [space.ask()["pid"]]
    for factory in (False, True):
        space.api.restart_space(space.repo_id, factory_reboot=factory)
        assert space.settled()["sha"] == sha
        pids.append(space.ask()["pid"])
    assert len(set(pids)) == 3
    assert not [pid for pid in pids[:-1] if psutil.pid_exists(pid)]


def test_a_paused_space_stays_paused_until_restart(space: Space) -> None:
    """Neither a visit nor a commit wakes it; a restart serves the newest commit."""
    space.commit(app__py=app("first"))
    space.settled()
    assert space.api.pause_space(space.repo_id).stage == "PAUSED"
    newest = space.commit(app__py=app("second"))
    assert patient_http.get(space.url).status_code == 503
    assert space.settled("PAUSED")["replicas"]["current"] == 0
    space.api.restart_space(space.repo_id)
    assert space.settled()["sha"] == newest
    assert space.ask()["says"] == "second"


def test_variables_and_secrets_reach_the_app_and_secrets_are_never_shown(space: Space) -> None:
    """A changed variable or secret restarts the app, which sees the value; the API answers secrets without it."""
    space.commit(app__py=app("configured"))
    space.settled()
    space.api.add_space_variable(space.repo_id, "GREETING", "hello", description="what to say")
    space.api.add_space_secret(space.repo_id, "PASSPHRASE", "xyzzy-plugh")
    eventually(lambda: space.raw["stage"] == "RUNNING")
    environment = space.ask()["environment"]
    assert (environment["GREETING"], environment["PASSPHRASE"]) == ("hello", "xyzzy-plugh")
    assert space.api.get_space_variables(space.repo_id)["GREETING"].value == "hello"
    secrets = patient_http.get(f"{space.api.endpoint}/api/spaces/{space.repo_id}/secrets", headers={"Authorization": f"Bearer {space.api.token}"})
    assert set(secrets.json()) == {"PASSPHRASE"}
    assert "xyzzy" not in secrets.text
    space.api.delete_space_secret(space.repo_id, "PASSPHRASE")
    eventually(lambda: space.raw["stage"] == "RUNNING")
    assert "PASSPHRASE" not in space.ask()["environment"]


def test_a_sleeping_space_wakes_on_a_visit(space: Space) -> None:
    """After the sleep time without a visit it is stopped; the next visitor is told to wait, and then served."""
    space.commit(app__py=app("drowsy"))
    space.settled()
    assert space.api.request_space_hardware(space.repo_id, "cpu-upgrade", sleep_time=1).sleep_time == 1
    eventually(lambda: space.raw["stage"] == "STOPPED")
    first = patient_http.get(space.url)
    assert (first.status_code, first.headers["retry-after"]) == (503, "1")
    space.api.set_space_sleep_time(space.repo_id, -1)
    assert eventually(lambda: (answer := patient_http.get(space.url)).status_code == 200 and answer.json())["says"] == "drowsy"


def test_a_static_space_serves_its_files(hub: EmbeddedHub, hub_namespace: str) -> None:
    """Files of a static Space are served as they are, folders aren't listed, and nothing outside is reached."""
    static = Space(hub, f"{hub_namespace}/page", sdk="static")
    sha = static.commit(index__html=b"<h1>hello</h1>", **{"data/numbers__json": b"[1]"})
    assert static.settled()["sha"] == sha
    assert patient_http.get(static.url).text == "<h1>hello</h1>"
    assert patient_http.get(static.url + "/data/numbers.json").json() == [1]
    assert [patient_http.get(static.url + path).status_code for path in ("/data/", "/..%2F..%2Fsettings.json", "/%2e%2e/settings.json")] == [404] * 3


DOCKERFILE = b"""# syntax=docker/dockerfile:1
FROM python:3.11-slim AS base
ARG WORD=hello
ENV GREETING="$WORD world" HOME=/home/user \\
    # between the lines
    PATH=/nowhere
FROM base
COPY --chown=user . $HOME/app
WORKDIR $HOME/app/src
ENTRYPOINT ["python", "main.py"]
CMD ["--address", "0.0.0.0:9000"]
RUN <<END
CMD ["not", "this"]
END
"""


def test_a_docker_space_runs_its_command_in_place(hub: EmbeddedHub, hub_namespace: str) -> None:
    """ENTRYPOINT and CMD run in the WORKDIR with the last stage's ENV, on a port of this hub's own; the build log says that there is no container."""
    docker = Space(hub, f"{hub_namespace}/boxed", sdk="docker")
    assert "Dockerfile is not in the repository" in docker.settled("NO_APP_FILE")["errorMessage"]
    listens = b"(sys.argv[2].split(':')[0], int(sys.argv[2].split(':')[1]))"
    main = b"import sys; print(sys.argv)\n" + app("boxed").replace(b'(os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"]))', listens)
    sha = docker.commit(Dockerfile=DOCKERFILE, README__md=b"---\nsdk: docker\napp_port: 9000\n---\n", **{"src/main__py": main})
    assert docker.settled()["sha"] == sha
    answer, environment = docker.ask(), docker.ask()["environment"]
    assert (answer["says"], environment["GREETING"]) == ("boxed", "hello world")
    assert "/nowhere" not in environment["PATH"] and environment["HOME"] != "/home/user"
    assert "'--address', '127.0.0.1:" in docker.log()
    log = docker.log(build=True)
    assert "no container is made" in log and "python main.py --address 0.0.0.0:9000" in log


@pytest.mark.parametrize(
    ("dockerfile", "card", "stage", "said"),
    [
        (b"FROM python:3.11\n", b"---\nsdk: docker\n---\n", "BUILD_ERROR", "neither CMD nor ENTRYPOINT"),
        (b"FROM python:3.11\nENV A='b\nCMD true\n", b"---\nsdk: docker\n---\n", "BUILD_ERROR", "No closing quotation"),
        (b"FROM python:3.11\nCMD true\n", b"---\nsdk: docker\napp_port: http\n---\n", "CONFIG_ERROR", "app_port 'http' is no port"),
        (b"FROM python:3.11\nCMD echo on port 7860; exit 7\n", b"---\nsdk: docker\n---\n", "RUNTIME_ERROR", "on port "),
        (b'FROM python:3.11\nCMD ["surely-not-there"]\n', b"---\nsdk: docker\n---\n", "RUNTIME_ERROR", "surely-not-there"),
    ],
)
@pytest.mark.filterwarnings("ignore:Warnings while validating metadata")
def test_a_broken_docker_space_says_what_is_wrong(space: Space, dockerfile: bytes, card: bytes, stage: str, said: str) -> None:
    """A Dockerfile that can't be followed and a command that ends are told by the stage and its log."""
    space.commit(Dockerfile=dockerfile, README__md=card)
    assert space.settled(stage)["errorMessage"]
    assert said in space.log(build=stage != "RUNTIME_ERROR")


def test_a_space_of_the_streamlit_sdk_runs(hub: EmbeddedHub, hub_namespace: str) -> None:
    """An app.py of Streamlit is served by Streamlit, and the build log says that the real service makes no new ones."""
    streamlit = Space(hub, f"{hub_namespace}/lit", sdk="streamlit")
    sha = streamlit.commit(app__py=b"import streamlit as st\nst.title('hello')\n")
    assert streamlit.settled()["sha"] == sha
    assert patient_http.get(streamlit.url + "/_stcore/health").text == "ok"
    assert "a Docker Space runs streamlit" in streamlit.log(build=True)


def test_a_deleted_space_is_gone_and_a_moved_one_keeps_its_address(space: Space) -> None:
    """Moving restarts the app under its new name at the same address; deleting ends it and closes the address."""
    space.commit(app__py=app("mover"))
    space.settled()
    space.api.move_repo(space.repo_id, space.repo_id + "-moved", repo_type="space")
    space.repo_id += "-moved"
    eventually(lambda: patient_http.get(space.url).status_code == 200 and space.ask()["environment"]["SPACE_ID"] == space.repo_id)
    pid = space.ask()["pid"]
    space.api.delete_repo(space.repo_id, repo_type="space")
    eventually(lambda: not psutil.pid_exists(pid))
    with pytest.raises(httpx2.ConnectError):
        eventually(lambda: space.ask() and False)


def test_no_app_outlives_a_killed_hub_and_a_new_hub_brings_it_back(tmp_path: Path) -> None:
    """kill -9 of the hub ends the app and what the app started; the next hub on that root serves it again at the same address, with its secrets."""
    with EmbeddedHub.start(tmp_path) as first:
        space = Space(first, "team/app")
        space.api.add_space_secret(space.repo_id, "KEPT", "yes")
        sha = space.commit(app__py=parent())
        space.settled()
        pids = {space.ask()["pid"], space.child()}
        assert all(psutil.pid_exists(pid) for pid in pids)
        first.kill()
        eventually(lambda: not any(alive(pid) for pid in pids))
    with EmbeddedHub.start(tmp_path) as second:
        space.api = second.api()
        assert space.settled()["sha"] == sha
        assert space.api.space_info(space.repo_id).host == space.url
        assert space.ask()["environment"]["KEPT"] == "yes"
