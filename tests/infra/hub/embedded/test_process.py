"""Start, stop, and what the server loads."""

import os
import signal
import subprocess
import sys
import time

import httpx2
import pytest

from infra.hub.embedded.process import CLIENT_ENVIRONMENT, EmbeddedHub


def test_the_environment_is_all_that_a_child_needs(hub):
    """A child that knows nothing but these variables finds the Hub and its user."""
    assert set(hub.environment) == {"HF_ENDPOINT", "HF_TOKEN", *CLIENT_ENVIRONMENT}
    program = "import huggingface_hub as h; print(h.HfApi().whoami()['name'])"
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | hub.environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "spaceport\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_two_lines_and_ends_cleanly(tmp_path, number):
    """HF_ENDPOINT= and HF_TOKEN= for a shell; SIGTERM and Ctrl-C end it with 0 even while a client holds a connection."""
    arguments = [sys.executable, "-m", "infra.hub.embedded", "--root", str(tmp_path)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    endpoint, token = (process.stdout.readline().strip().split("=", 1) for _ in range(2))
    assert (endpoint[0], token[0]) == ("HF_ENDPOINT", "HF_TOKEN") and token[1].startswith("hf_")
    with httpx2.Client() as client:
        assert client.get(f"{endpoint[1]}/api/models").status_code == 200
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_a_taken_port_is_said_in_one_line(hub, tmp_path):
    """No traceback."""
    port = httpx2.URL(hub.endpoint).port
    arguments = [sys.executable, "-m", "infra.hub.embedded", "--root", str(tmp_path), "--port", str(port)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and f"Port {port} can't be had" in done.stderr and len(done.stderr.splitlines()) == 1


def test_it_is_light(tmp_path):
    """The server imports none of the heavy libraries, nor the client that talks to it."""
    program = (
        "import sys, infra.hub.embedded.server, infra.hub.embedded.app, infra.hub.embedded.__main__\n"
        "print([m for m in ('torch', 'datasets', 'transformers', 'prefect', 'pyarrow', 'numpy', 'huggingface_hub', 'gradio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n"


def test_the_plugin_is_silent():
    """Importing the pytest plugin imports no client and starts nothing."""
    program = "import sys, infra.hub.embedded.pytest_plugin; print([m for m in sys.modules if m.split('.')[0] in ('huggingface_hub', 'starlette', 'pygit2')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_another_project_can_use_the_fixture(tmp_path):
    """A test of a stranger, in a folder of its own, with nothing but the installed plugin."""
    (tmp_path / "test_theirs.py").write_text(
        "from huggingface_hub import constants\n"
        "def test_theirs(hub, hub_namespace):\n"
        "    assert constants.HF_HUB_DISABLE_XET\n"
        "    api = hub.api()\n"
        "    repo = api.create_repo(hub_namespace + '/m').repo_id\n"
        "    api.upload_file(path_or_fileobj=b'x' * 99, path_in_repo='w.bin', repo_id=repo)\n"
        "    assert api.file_exists(repo, 'w.bin')\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in CLIENT_ENVIRONMENT and not k.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_unknown_options_are_named(tmp_path):
    """A misspelt option doesn't start a server without it."""
    with pytest.raises(TypeError, match="unknown options"):
        EmbeddedHub.start(tmp_path, rate_limitt=3)


def test_events_come_in_order_and_after_the_fact(tmp_path):
    """Subscribers see create, commits, branches, tags, moves and deletes, in their order, when the repo already shows them."""
    import asyncio

    from infra.hub.embedded.app import create_app
    from infra.hub.embedded.state import HubState

    state = HubState(tmp_path, endpoint="http://127.0.0.1:1")
    seen: list[tuple[object, ...]] = []
    app = create_app(state)
    state.on_create.append(lambda repo, payload: seen.append(("create", repo.repo_id, payload["name"])))
    state.on_commit.append(lambda repo, branch, old, new: seen.append(("commit", repo.repo_id, branch, old, new)))
    state.on_commit.insert(0, lambda *_: 1 / 0)
    state.on_move.append(lambda old, new: seen.append(("move", old.repo_id, new.repo_id)))
    state.on_delete.append(lambda repo: seen.append(("delete", repo.repo_id)))
    headers = {"Authorization": f"Bearer {state.users.default_token()}"}

    async def work() -> None:
        lifespan = app.app.router.lifespan_context(app.app)
        async with lifespan, httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost", headers=headers) as client:
            calls = [
                ("POST", "/api/repos/create", {"json": {"name": "m", "organization": "o"}}),
                (
                    "POST",
                    "/api/models/o/m/commit/main",
                    {"content": '{"key":"header","value":{"summary":"x"}}\n{"key":"file","value":{"path":"a","content":"b"}}'},
                ),
                ("POST", "/api/models/o/m/branch/b%2Fc", {}),
                ("POST", "/api/models/o/m/tag/main", {"json": {"tag": "t"}}),
                ("POST", "/api/repos/move", {"json": {"fromRepo": "o/m", "toRepo": "o/n"}}),
                ("DELETE", "/api/models/o/n/branch/b%2Fc", {}),
                ("DELETE", "/api/repos/delete", {"json": {"name": "n", "organization": "o"}}),
            ]
            for method, path, rest in calls:
                answer = await client.request(method, path, **rest)
                assert answer.status_code == 200, (path, answer.text)

    asyncio.run(work())
    first, second = seen[1][4], seen[2][4]
    assert seen == [
        ("create", "o/m", "m"),
        ("commit", "o/m", "main", None, first),
        ("commit", "o/m", "main", first, second),
        ("commit", "o/m", "b/c", None, second),
        ("commit", "o/m", "refs/tags/t", None, second),
        ("move", "o/m", "o/n"),
        ("commit", "o/n", "b/c", second, None),
        ("delete", "o/n"),
    ]
    assert time.monotonic() > 0
