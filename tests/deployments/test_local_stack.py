"""The local stack: what is started is ended, whatever happens, and what is named in the environment is not started."""

import contextlib
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from deployments.local_environment import Stack
from deployments.local_stack import LocalStack
from infra.daemons import comes_free
from infra.settings import Settings, process_environment
from tests.eventually import eventually
from tests.prefect_database import give_database

COMMAND = [sys.executable, "-m", "deployments.command"]
NAMED = ("HF_ENDPOINT", "HF_TOKEN", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "SPACEPORT_SPACE_TOKEN")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment of its own, with a mark that everything started in it inherits."""
    return process_environment(without=NAMED) | {"SPACEPORT_HOME": str(tmp_path / "home"), "SPACEPORT_TEST_MARK": uuid.uuid4().hex}


def marked(environment: dict[str, str]) -> list[str]:
    """The command lines of all living processes that bear the mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SPACEPORT_TEST_MARK") == environment["SPACEPORT_TEST_MARK"] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[:120])
    return found


def up(environment: dict[str, str]) -> Stack:
    """`spaceport up`, and the stack that it left running."""
    subprocess.run([*COMMAND, "up"], env=environment, capture_output=True, timeout=200, check=True)
    return LocalStack(Settings.model_validate({"SPACEPORT_HOME": environment["SPACEPORT_HOME"]})).find()


@pytest.mark.parametrize(("when", "number"), [("hub", signal.SIGINT), ("server", signal.SIGINT), ("server", signal.SIGTERM)])
def test_ctrl_c_while_starting_leaves_no_process_behind(environment: dict[str, str], tmp_path: Path, when: str, number: int) -> None:
    """Interrupted as soon as one part runs, `up` ends that part and all others, and forgets them; also as a shell's background job."""
    up = subprocess.Popen([*COMMAND, "up"], env=environment, stderr=subprocess.DEVNULL)
    eventually((tmp_path / "home" / "logs" / f"{when}.log").exists)
    up.send_signal(number)
    assert up.wait(60) == 130
    assert marked(environment) == []
    assert not (tmp_path / "home" / "stack.json").exists()


def test_a_failure_while_starting_leaves_no_process_behind(environment: dict[str, str], tmp_path: Path) -> None:
    """When one part can't start (here: the Hub's folder is a file), the others end and the message names the log."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "hub").write_text("in the way")
    up = subprocess.run([*COMMAND, "up"], env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert up.returncode == 1
    said = up.stderr.strip().splitlines()[-1]
    assert said.startswith("spaceport: unhealthy: hub ended while starting") and "hub.log" in said
    assert marked(environment) == []


@pytest.mark.slow  # the slice of kills in tests/faults sees a dead worker and server brought back, too
def test_what_died_is_brought_back_alone_at_its_address(environment: dict[str, str]) -> None:
    """Server, Hub and worker are killed: `up` starts these three at their addresses, and the others live through it, also the worker of another target."""

    def kill(stack: Stack, *names: str) -> None:
        for daemon in stack.daemons:
            if daemon.name in names:
                psutil.Process(daemon.pid).kill()
        eventually(lambda: not any(daemon.alive for daemon in stack.daemons if daemon.name in names))

    try:
        up(environment)
        local = LocalStack(Settings.model_validate({"SPACEPORT_HOME": environment["SPACEPORT_HOME"]}))
        local.have_worker("hf-jobs")
        first = local.find()
        kill(first, "server", "hub", "worker")
        second = up(environment)
        assert second.alive and (second.prefect_api_url, second.hf_endpoint) == (first.prefect_api_url, first.hf_endpoint)
        kept = {daemon.name for daemon in first.daemons} & {daemon.name for daemon in second.daemons if daemon in first.daemons}
        assert kept == {"engines", "reconciler", "worker-hf-jobs"} and len(second.daemons) == len(first.daemons)
        kill(second, "worker-hf-jobs")
        third = up(environment)
        assert third.alive and third.named("worker-hf-jobs") and len(third.daemons) == len(first.daemons)
    finally:
        subprocess.run([*COMMAND, "down"], env=environment, capture_output=True, timeout=100, check=False)
    assert marked(environment) == []


@pytest.mark.slow
def test_a_port_lost_while_starting_moves_the_server_alone(environment: dict[str, str]) -> None:
    """A stranger takes the port that the server was about to listen on: it moves, nothing of the lost try is kept, and a second `up` starts nothing."""
    try:
        with subprocess.Popen([*COMMAND, "up"], env=environment, stderr=subprocess.PIPE, text=True) as starting:
            eventually(lambda: [line for line in marked(environment) if "infra.prefect_server" in line])
            wanted = next(line for line in marked(environment) if "infra.prefect_server" in line).split("--port ")[1]
            with socket.create_server(("127.0.0.1", int(wanted))):
                said = starting.communicate(timeout=200)[1]
        assert starting.returncode == 0 and "is taken)" in said
        first = LocalStack(Settings.model_validate({"SPACEPORT_HOME": environment["SPACEPORT_HOME"]})).find()
        assert first.alive and sorted(daemon.name for daemon in first.daemons) == ["engines", "hub", "reconciler", "server", "worker"]
        assert up(environment) == first
    finally:
        subprocess.run([*COMMAND, "down"], env=environment, capture_output=True, timeout=100, check=False)
    assert marked(environment) == []


@pytest.mark.slow
def test_when_an_address_is_lost_everything_moves(environment: dict[str, str]) -> None:
    """The server died and a stranger has its port: `up` starts all of it anew, elsewhere."""

    try:
        first = up(environment)
        server = first.named("server")
        assert server
        psutil.Process(server.pid).kill()
        port = urlsplit(server.url or "").port or 0
        assert comes_free(port)
        with socket.create_server(("127.0.0.1", port)):
            second = up(environment)
        assert second.alive and second.prefect_api_url != first.prefect_api_url and not {*second.daemons} & {*first.daemons}
    finally:
        subprocess.run([*COMMAND, "down"], env=environment, capture_output=True, timeout=100, check=False)
    assert marked(environment) == []


@pytest.mark.timeout(1200)
def test_a_failed_run_of_the_demo_ends_the_stack_that_it_started(environment: dict[str, str], tmp_path: Path) -> None:
    """A run that fails leaves nothing running, and says where the logs are; the demo's rows were found, though its home is another than the checkout's."""
    give_database(tmp_path / "home" / "prefect", registered=True)
    command = [*COMMAND, "demo", "--data.labels", '["good", "bad"]']
    demo = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert demo.returncode == 1 and "movie_snippets.csv" in demo.stdout and "'positive'" in demo.stdout and "logs" in demo.stderr
    assert marked(environment) == []


def test_a_mistake_in_a_flag_is_said_before_anything_is_started(environment: dict[str, str], tmp_path: Path) -> None:
    """One line, exit code 1, and no stack was made for it."""
    demo = subprocess.run([*COMMAND, "demo", "--model.repo_id", "no/such/name"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert demo.returncode == 1 and "model.repo_id" in demo.stderr and len(demo.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_what_the_environment_names_is_used_and_nothing_is_started(tmp_path: Path) -> None:
    """With HF_ENDPOINT and PREFECT_API_URL set, `up` has nothing of these to start, and their values win."""
    named = Settings.model_validate({"HF_ENDPOINT": "http://hub.example", "PREFECT_API_URL": "http://prefect.example/api", "SPACEPORT_HOME": tmp_path})
    stack = LocalStack(named)
    settings = stack.connected(stack.find())
    assert (settings.endpoint, settings.prefect_api_url) == ("http://hub.example", "http://prefect.example/api")
    assert list(tmp_path.iterdir()) == []


def interrupted_demo(environment: dict[str, str]) -> tuple[int, str]:
    """The demo, told Ctrl-C as soon as its run is started: exit code and what it said."""
    with subprocess.Popen([*COMMAND, "demo"], env=environment, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr
        said = []
        for line in demo.stderr:
            said.append(line)
            if line.startswith("run "):
                demo.send_signal(signal.SIGINT)
        return demo.wait(60), "".join(said)


@pytest.mark.slow
def test_ctrl_c_ends_the_stack_of_the_demo_and_says_no_other(environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing is left of a stack that the demo started, its run included, and no line claims that the run goes on."""
    give_database(tmp_path / "home" / "prefect", registered=True)
    code, said = interrupted_demo(environment)
    assert code == 130 and "the local stack is ended, and what ran on it" in said and "goes on" not in said
    assert marked(environment) == []


@pytest.mark.slow
def test_ctrl_c_leaves_a_stack_that_was_there_before_the_demo(environment: dict[str, str]) -> None:
    """The stack and the run go on, and the command that follows it again is said."""
    try:
        first = up(environment)
        code, said = interrupted_demo(environment)
        assert code == 130 and "the run goes on" in said and "movie_reviews.toml --data.source=" in said and " --key " in said
        assert up(environment) == first
    finally:
        subprocess.run([*COMMAND, "down"], env=environment, capture_output=True, timeout=100, check=False)
    assert marked(environment) == []
