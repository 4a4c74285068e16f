"""Credentials of a worker, planted as canaries: none sings where a person, a script, a commit or a process list could hear it."""

import base64
import http.server
import json
import textwrap
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pygit2
import pytest

from infra.errors import SpaceportError
from infra.hub.client import HubClient
from infra.hub.embedded.process import EmbeddedHub
from infra.hub.ledger import Ledger
from infra.hub.live import read_main
from infra.hub.step_records import StepRecord
from infra.prefect_api import PrefectApi
from infra.revisions import DatasetRevision, ModelRevision, Repo
from infra.settings import Settings
from infra.storage.sources import list_source
from tasks.data_register import DataConfig, data_register
from tasks.promote_model import promote
from tasks.publish_candidate import ModelConfig, Provenance, publish_candidate
from tasks.refresh_space import ProbeRow, SpaceConfig, refresh_space
from tasks.train_model import Columns, TrainConfig, train

HF_WRITE, HF_READ = "hf_CANARYwriteCANARYwrite0123456789", "hf_CANARYreadCANARYread0123456789xx"
PREFECT, AWS_ID, AWS_SECRET, AWS_SESSION = (
    "CANARYprefectpassword",
    "AKIACANARYCANARY1234",
    "CANARYawssecretCANARYawssecret/+12345678",
    "CANARYsessionCANARYsession",
)
DATABASE, PROXY = "CANARYdatabase", "CANARYproxy"
USERS = f'[users.ann]\ntokens = [{{ token = "{HF_WRITE}", role = "write" }}, {{ token = "{HF_READ}", role = "read" }}]\n'
ENVIRONMENT = {
    "HF_TOKEN": HF_WRITE,
    "HUGGING_FACE_HUB_TOKEN": HF_WRITE,
    "SPACEPORT_SPACE_TOKEN": HF_READ,
    "PREFECT_API_AUTH_STRING": f"admin:{PREFECT}",
    "AWS_ACCESS_KEY_ID": AWS_ID,
    "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
    "AWS_SESSION_TOKEN": AWS_SESSION,
    "AWS_DEFAULT_REGION": "us-east-1",
    "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql://prefect:{DATABASE}@db/prefect",
    "PIP_INDEX_URL": f"https://me:{PROXY}@pypi.example/simple",
}
PLANTED = {HF_WRITE, HF_READ, PREFECT, AWS_ID, AWS_SECRET, AWS_SESSION, DATABASE, PROXY}
CANARIES = PLANTED | {base64.b64encode(f"admin:{PREFECT}".encode()).decode()}  # as a header carries it
TALKATIVE = """
import json, os, pathlib, subprocess, sys
out = pathlib.Path(os.environ["SPACEPORT_OUTPUT"])
told = dict(os.environ)
for path in ("~/.cache/huggingface/token", os.environ["SPACEPORT_CONFIG"]):
    path = pathlib.Path(path).expanduser()
    told[str(path)] = path.read_text() if path.is_file() else ""
told["child"] = subprocess.run(["env"], capture_output=True, text=True).stdout
(out / "environment.json").write_text(json.dumps(told))
(out / "model.json").write_text("{}")
(out / "metrics.json").write_text('{"accuracy": 0.5}')
print(told); print(told, file=sys.stderr)
for value in json.loads(pathlib.Path(os.environ["SPACEPORT_DATA"], "leak.json").read_text()):
    print("found", value, "and", value); print("::spaceport " + json.dumps({"step": 1, "note": value}))
    print("died of " + value, file=sys.stderr)
print("ready", flush=True)
"""
APP = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
PIN = json.load(open(".spaceport/pin.json"))
print(dict(os.environ), flush=True)
if os.path.exists("broken"): raise SystemExit("my token is " + os.environ["HF_TOKEN"])
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/revision": self.send(json.dumps({**PIN, "space": os.environ["SPACE_COMMIT_SHA"]}))
        elif self.path.startswith("/gradio_api/call/predict/"): self.send("event: complete\\ndata: " + json.dumps([{"no": 0.25, "yes": 0.75}]) + "\\n\\n")
        else: self.send("hello")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.send('{"event_id": "1"}')
    def send(self, text):
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
ThreadingHTTPServer((os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"])), Answer).serve_forever()
"""


def sung(content: str | bytes) -> list[str]:
    """The canaries in a text."""
    found = content.encode() if isinstance(content, str) else content
    return [canary for canary in CANARIES if canary.encode() in found]


def process_list() -> list[str]:
    """The canaries in the arguments of every process of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found += sung(path.read_bytes())
    return found


def kept_by(root: Path) -> list[str]:
    """The canaries in what a Hub keeps: every file, every git object unpacked; a Space's secrets are where they belong."""
    found = []
    for path in root.rglob("*"):
        if not path.is_file() or path.name == "settings.json":
            continue
        content = path.read_bytes()
        with suppress(zlib.error):
            content += zlib.decompress(content)
        found += [f"{canary} in {path}" for canary in sung(content)]
    for folder in root.rglob("*.git"):
        repo = pygit2.Repository(str(folder))
        found += [f"{canary} in {folder}" for oid in repo for canary in sung(repo[oid].read_raw())]
    return found


@dataclass
class Worker:
    """A worker with credentials in its environment, a Hub, and everything that was said meanwhile."""

    hub: EmbeddedHub
    client: HubClient
    folder: Path
    heard: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)  # in process lists

    def hear(self, said: object) -> None:
        self.heard.append(str(said))
        self.seen += process_list()

    def data(self, *leaks: str) -> Path:
        """A dataset snapshot, with what the script shall say."""
        folder = self.folder / "dataset"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "leak.json").write_text(json.dumps(leaks))
        for split in ("train", "test"):
            table = pa.table({"row_id": [f"{split}{row}" for row in range(6)], "text": ["a film"] * 6, "label": ["no", "yes"] * 3})
            parquet.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
        return folder

    def script(self, code: str, **more: Any) -> TrainConfig:
        folder = self.folder / "code"
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(TALKATIVE + textwrap.dedent(code))
        return TrainConfig(code=str(folder), command=("python", "train.py"), dtype="float32", **more)


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    (tmp_path / "users.toml").write_text(USERS)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with EmbeddedHub.start(tmp_path / "hub", tmp_path / "users.toml", ends_with_parent=True) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield Worker(hub, HubClient.from_settings(), tmp_path)


async def test_the_whole_arrow_carries_no_credential(worker: Worker) -> None:
    """Data, a script that publishes all it can see, promotion and a live Space: not one canary in environment, logs, commits, process lists."""
    rows = worker.folder / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"film {row},{('no', 'yes')[row % 2]}\n" for row in range(40)))
    registered = data_register(DataConfig(repo_id="ann/rows", source=str(rows)), worker.client, worker.folder / "work")
    trained = await train(
        worker.data(*PLANTED), None, worker.script(""), Columns(labels=("no", "yes")), worker.folder / "train", on_line=worker.hear, on_progress=worker.hear
    )
    assert worker.heard and sung((trained.output / "environment.json").read_bytes()) == []
    assert sung("\n".join(worker.heard)) == []
    record = StepRecord.of("train_model", 1, {"a": 1})
    provenance = Provenance(dataset=registered.revision, dataset_digest="d", labels=("no", "yes"))
    made = publish_candidate(trained.output, trained.predictions, trained.metrics, record, provenance, ModelConfig(repo_id="ann/model"), worker.client)
    main = read_main(worker.client, Repo(repo_type="model", repo_id="ann/model"))
    assert main
    model = promote(ModelRevision(repo_id="ann/model", sha=made.revision.sha), main.revision.sha, None, worker.client).revision
    serve(worker, model, registered.revision)
    worker.hear("served")
    assert worker.seen == []
    assert kept_by(worker.hub.root) == []


def serve(worker: Worker, model: ModelRevision, dataset: DatasetRevision, **files: bytes) -> None:
    """The team's own app in a Space; it prints its environment."""
    api = worker.client.api
    api.create_repo("ann/space", repo_type="space", space_sdk="gradio", private=True, exist_ok=True)
    for path, content in {"app.py": APP.encode(), **files}.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id="ann/space", repo_type="space")
    rows, config = [ProbeRow(text="a film", expected={"no": 0.25, "yes": 0.75})], SpaceConfig(repo_id="ann/space", startup_timeout_seconds=30)
    token = Settings().space_token
    refresh_space(model, rows, config, worker.client, dataset=dataset, space_token=token, poll_seconds=0.05, settle_seconds=2)


async def test_a_secret_that_the_script_may_read_is_in_no_log_and_no_error(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that is given a secret and dies with it on its lips is quoted without it."""
    monkeypatch.setenv("WANDB", "CANARYwandbCANARY")
    config = worker.script("raise SystemExit('cannot log in with ' + os.environ['WANDB'])", secrets=("WANDB",))
    with pytest.raises(SpaceportError) as caught:
        await train(worker.data(), None, config, Columns(), worker.folder / "train", on_line=worker.hear)
    assert "cannot log in with ***" in str(caught.value)
    assert "CANARYwandb" not in "\n".join(worker.heard) and sung("\n".join(worker.heard)) == []


def test_a_space_that_dies_with_its_token_on_its_lips_is_quoted_without_it(worker: Worker) -> None:
    """The log of an app that prints its environment goes into the error, its HF_TOKEN doesn't."""
    worker.client.api.create_repo("ann/model", private=True)
    sha = worker.client.head(Repo(repo_type="model", repo_id="ann/model"))
    model, dataset = ModelRevision(repo_id="ann/model", sha=str(sha)), DatasetRevision(repo_id="ann/rows", sha="a" * 40)
    with pytest.raises(SpaceportError) as caught:
        serve(worker, model, dataset, broken=b"yes")
    assert "my token is hf_***" in str(caught.value)
    assert sung(str(caught.value)) == [] and process_list() == []


@contextmanager
def echo(status: int) -> Iterator[str]:
    """A service that refuses everything and repeats what it was sent, credentials included, in body and headers."""

    class Echo(http.server.BaseHTTPRequestHandler):
        def refuse(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            said = " ".join(f"{name}={value}" for name, value in self.headers.items())
            scheme, _, credential = self.headers.get("Authorization", "").partition(" ")
            said += f" {base64.b64decode(credential)!r}" if scheme == "Basic" else ""
            xml = f"<Error><Code>InvalidAccessKeyId</Code><Message>{said}</Message><AWSAccessKeyId>{AWS_ID}</AWSAccessKeyId></Error>"
            body = json.dumps({"error": said}).encode() if "bucket" not in self.path else xml.encode()
            self.send_response(status)
            self.send_header("X-Error-Message", said.replace("\n", " "))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_HEAD = do_PUT = refuse

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409])
@pytest.mark.parametrize("service", ["hub", "s3", "prefect"])
def test_a_service_that_repeats_our_credentials_is_quoted_without_them(monkeypatch: pytest.MonkeyPatch, service: str, status: int) -> None:
    """Hub, S3 and Prefect refuse with our credentials in their answer: the error names none."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with echo(status) as address:
        asked: dict[str, Callable[[], object]] = {
            "hub": lambda: HubClient.from_settings(Settings().model_copy(update={"hf_endpoint": address})).whoami(),
            "s3": lambda: list_source("s3://bucket/rows.csv"),
            "prefect": lambda: PrefectApi.from_settings(Settings().model_copy(update={"prefect_api_url": f"{address}/api"})).read_run("x"),
        }
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(SpaceportError) as caught:
            asked[service]()
    assert sung(str(caught.value)) == []


@pytest.mark.parametrize("service", ["hub", "s3", "prefect"])
def test_a_service_that_isnt_there_is_named_without_credentials(monkeypatch: pytest.MonkeyPatch, service: str) -> None:
    """Nobody answers: the error names the address and no credential."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    address = "http://127.0.0.1:9"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    prefect = PrefectApi(f"{address}/api", f"admin:{PREFECT}")
    prefect.patience_seconds = 0
    hub = HubClient.from_settings(Settings().model_copy(update={"hf_endpoint": address}))
    asked: dict[str, Callable[[], object]] = {"hub": hub.whoami, "s3": lambda: list_source("s3://bucket/rows.csv"), "prefect": lambda: prefect.read_run("x")}
    with pytest.raises(SpaceportError) as caught:
        asked[service]()
    assert sung(str(caught.value)) == []


def test_what_holds_a_credential_doesnt_show_it(worker: Worker) -> None:
    """Settings and clients can be printed."""
    assert sung(f"{Settings()!r} {Settings()} {worker.client!r} {Settings().model_dump_json()} {Ledger(worker.client)!r}") == []
