"""The local stack's Prefect server: many who write at once into its SQLite all get their answer at the first try."""

import contextlib
import json
import os
import socket
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from infra import daemons
from tests.prefect_database import give_database


def post(url: str, path: str, body: object) -> tuple[int, Any]:
    """One request, asked once; the status and the answer."""
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a database of its own; its API address."""
    home, port = tmp_path_factory.mktemp("server") / "prefect", daemons.free_port(0)
    give_database(home)
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    environment.pop("PREFECT_API_URL", None)
    started = daemons.start("server", [sys.executable, "-m", "infra.prefect_server", "--port", str(port)], environment, Path(home) / "log")
    url = f"http://127.0.0.1:{port}/api"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    try:
        daemons.wait_until_ready(started, answers, 120)
        yield url
    finally:
        daemons.stop([started])


def test_eight_writers_at_once_are_all_answered_at_once(server: str) -> None:
    """Runs are created, moved and logged by eight clients that never ask twice: no request fails, and each run is there once."""
    _, flow = post(server, "/flows/", {"name": "busy"})
    _, deployment = post(server, "/deployments/", {"name": "busy", "flow_id": flow["id"]})

    def one(number: int) -> list[int]:
        created, run = post(server, f"/deployments/{deployment['id']}/create_flow_run", {"name": f"run {number}", "state": {"type": "SCHEDULED"}})
        moved, _ = post(server, f"/flow_runs/{run['id']}/set_state", {"state": {"type": "PENDING"}})
        line = {"name": "a", "level": 20, "message": "here", "timestamp": "2026-11-25T00:00:00Z", "flow_run_id": run["id"]}
        logged, _ = post(server, "/logs/", [line])
        return [created, moved, logged]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(40)))
    assert Counter(status for one in answers for status in one) == {201: 120}
    _, runs = post(server, "/flow_runs/filter", {"flows": {"id": {"any_": [flow["id"]]}}})
    assert sorted((run["name"], run["state"]["type"]) for run in runs) == sorted((f"run {number}", "PENDING") for number in range(40))


def test_a_client_that_stops_in_the_middle_of_its_request_holds_nobody_up(server: str) -> None:
    """Half a request is no turn taken: the next one is answered while the first still hangs."""
    host, port = server.removeprefix("http://").removesuffix("/api").split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /api/flows/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{")
        assert post(server, "/flows/", {"name": "quick"})[0] in {200, 201}


def test_an_error_of_the_request_comes_through_as_it_is(server: str) -> None:
    """What can't be right isn't tried again, and its answer is Prefect's own."""
    assert post(server, "/deployments/", {"name": "no flow"})[0] == 422


def test_a_hundred_open_websockets_leave_the_server_free_to_answer(server: str) -> None:
    """Each run that waits holds one open; Prefect alone counts them as requests, and answers nobody from the hundredth on."""
    with contextlib.ExitStack() as stack:
        for _ in range(110):
            stack.enter_context(connect(server.replace("http://", "ws://") + "/events/in", open_timeout=30))
        with urllib.request.urlopen(f"{server}/health", timeout=30) as answer:
            assert answer.status == 200
