"""A real local stack: Prefect server, embedded Hub, worker, and the `spaceport` command against it. One for all modules that do it no harm."""

import contextlib
import fcntl
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.compute.own_run import ALIVE
from infra.errors import Conflict
from infra.prefect_api import FINAL_STATES, PrefectApi
from infra.settings import process_environment
from tests.eventually import eventually
from tests.kept import Kept
from tests.prefect_database import give_database

TINY_BERT = """
import sys
from pathlib import Path
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sys.argv[2:]]
tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")
set_seed(1)
shape = BertConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
BertForSequenceClassification(shape).save_pretrained(sys.argv[1])
wrapped.save_pretrained(sys.argv[1])
"""
SLOW_MACHINE_SECONDS = 600  # what takes longer hangs, however busy the machine is
NEUTRAL, GOOD, BAD = ["movie", "film", "plot", "the", "is"], ["great", "fine", "lovely"], ["awful", "poor", "dull"]


@dataclass
class Spaceport:
    """The command, in the environment of one stack."""

    home: Path
    environment: dict[str, str]

    def __call__(self, *words: str, timeout_seconds: float = SLOW_MACHINE_SECONDS) -> tuple[int, dict[str, Any], str]:
        """Run `spaceport WORDS --json`: exit code, the object on standard output, standard error."""
        command = [sys.executable, "-m", "deployments.command", *words, "--json"]
        done = subprocess.run(command, env=self.environment, cwd="/", capture_output=True, text=True, timeout=timeout_seconds, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr

    def key(self, name: str) -> str:
        """One of the stack's credentials."""
        return (self.home / "keys" / name).read_text()

    @property
    def stack(self) -> dict[str, Any]:
        """What the stack has written down of itself: addresses and programs, as they are now."""
        return dict(json.loads((self.home / "stack.json").read_text()))

    @property
    def endpoint(self) -> str:
        """The embedded Hub's address."""
        return str(self.stack["hf_endpoint"])

    def prefect(self, patience_seconds: float = 30.0) -> PrefectApi:
        """The Prefect server, where it is now."""
        return PrefectApi(self.stack["prefect_api_url"], self.key("prefect"), patience_seconds)

    def daemon(self, name: str) -> psutil.Process:
        """One of the stack's programs."""
        return psutil.Process(next(daemon["pid"] for daemon in self.stack["daemons"] if daemon["name"] == name))


@contextlib.contextmanager
def running_stack(home: Path, **more: str) -> Iterator[Spaceport]:
    """A stack in a folder of its own, with more in its environment; nothing of it is left afterwards."""
    named = ("HF_ENDPOINT", "HF_TOKEN", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "SPACEPORT_SPACE_TOKEN")
    found = Spaceport(home, process_environment(without=named) | {"SPACEPORT_HOME": str(home), "HOME": str(home)} | more)
    command = [sys.executable, "-m", "deployments.command"]
    give_database(home / "prefect", registered=True)
    subprocess.run([*command, "up"], env=found.environment, check=True, timeout=SLOW_MACHINE_SECONDS)
    try:
        yield found
    finally:
        subprocess.run([*command, "down"], env=found.environment, check=True, timeout=SLOW_MACHINE_SECONDS)


# Pauses before a further try are short; every look of a worker costs its server 60 ms of a processor, and several stacks share two.
FRUGAL = {"SPACEPORT_RETRY_PACE": "0.02", "PREFECT_WORKER_QUERY_SECONDS": "1"}
# The stack of all modules here that neither kill its servers nor want another environment.
SHARED: Kept[Spaceport] = Kept(Path(__file__).parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """The stack isn't left standing idle beside the tests of other folders."""
    try:
        yield
    finally:
        SHARED.close_between(item, nextitem)


def pytest_sessionfinish() -> None:
    """Ctrl-C leaves no stack behind."""
    SHARED.close()


@pytest.fixture(scope="module")
def stack_environment() -> dict[str, str]:
    """What else is in the stack's environment; a module that says it differently has a stack of its own."""
    return {}


@pytest.fixture(scope="module")
def spaceport(tmp_path_factory: pytest.TempPathFactory, stack_environment: dict[str, str]) -> Iterator[Spaceport]:
    """The running stack, shared: a module has repositories of its own names on it. One that kills its servers overrides this by a stack of its own."""
    if not stack_environment:
        yield SHARED.get(lambda: running_stack(tmp_path_factory.mktemp("home"), **FRUGAL))
        return
    with running_stack(tmp_path_factory.mktemp("home"), **stack_environment) as found:
        yield found


@pytest.fixture(scope="module")
def project_name() -> str:
    """What the repositories of `project` are called; each module says it differently."""
    return "reviews"


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A base model small enough to train in seconds; made once for all xdist workers."""
    ours = tmp_path_factory.getbasetemp()
    folder = (ours.parent if hasattr(request.config, "workerinput") else ours) / "tiny-bert"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = folder.with_suffix(".draft")
            command = [sys.executable, "-c", TINY_BERT, str(draft), *NEUTRAL, *GOOD, *BAD]
            subprocess.run(command, check=True, env=process_environment(), timeout=SLOW_MACHINE_SECONDS)
            draft.rename(folder)
    return folder


@pytest.fixture(scope="module")
def project(spaceport: Spaceport, project_name: str, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run config with rows and a tiny base model on the stack's Hub; returns the config file."""
    from huggingface_hub import HfApi

    folder = tmp_path_factory.mktemp("project")
    api = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
    api.create_repo("acme/tiny-bert", exist_ok=True)
    api.upload_folder(repo_id="acme/tiny-bert", folder_path=tiny_bert)
    chance = random.Random(5)
    rows = [(" ".join(chance.choices(NEUTRAL, k=5) + chance.choices(words, k=2)), label) for words, label in ((GOOD, "good"), (BAD, "bad")) for _ in range(400)]
    (folder / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (folder / "run.toml").write_text(CONFIG.replace("reviews", project_name))
    return folder / "run.toml"


def no_space(project: Path, repo_id: str) -> Path:
    """The project's config for another model, without a Space."""
    text = re.sub(r'(?<=\[model\]\nrepo_id = ")[^"]+', repo_id, project.read_text()).split("[space]")[0]
    config = project.with_name(f"{repo_id.split('/')[1]}.toml")
    config.write_text(text)
    return config


def same_bytes_in_two_processes(spaceport: Spaceport, project: Path, target: str, how: str = "processes") -> None:
    """A training in two processes of a target, or on two of its machines (`nodes`), makes the weights that two processes make on this machine."""
    from huggingface_hub import HfApi

    api, found = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write")), []
    for where, kind in ((target, how), ("process", "processes")):
        repo_id = f"acme/two-{kind}-on-{where}"
        code, report, said = spaceport("run", str(no_space(project, repo_id)), "--target", where, f"--train.{kind}", "2")
        fit = {"promoted"} if where == target else {"promoted", "unchanged"}  # this machine's may be there from another test
        assert code == 0 and report["outcome"] in fit, said
        found += [info.lfs.sha256 for info in api.get_paths_info(repo_id, ["model.safetensors"])]
    assert found[0] == found[1]


# A model that knows some words, told them by the config; it can be told to wait for a file, and to fail.
KNOWN_WORDS_SCRIPT = """
import json, os, sys, time
from pathlib import Path
if sys.argv[1] == "train":
    told = json.loads(Path(os.environ["SPACEPORT_CONFIG"]).read_text())["args"]
    if told.get("fails"):
        sys.exit("the script gives up")
    while told.get("until") and not Path(told["until"]).exists():
        time.sleep(0.05)
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    output.joinpath("model.json").write_text(json.dumps({"good": told["known"], "version": 1}))
    output.joinpath("metrics.json").write_text(json.dumps({"words": len(told["known"])}))
else:
    import pyarrow.parquet as parquet
    good, lines = json.loads(Path(os.environ["SPACEPORT_MODEL"], "model.json").read_text())["good"], []
    for shard in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
        for row in parquet.read_table(shard).to_pylist():
            scores = {"good": 0.9, "bad": 0.1} if any(word in row["text"] for word in good) else {"good": 0.1, "bad": 0.9}
            lines.append({"row_id": row["row_id"], "prediction": max(scores, key=scores.get), "score": 0.9, "scores": scores})
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps(line) + "\\n" for line in lines))
"""
KNOWN_WORDS_ROWS = "text,label\n" + "".join(
    f"{word} film number {n},{label}\n" for n in range(60) for word, label in (("great", "good"), ("fine", "good"), ("awful", "bad"), ("dull", "bad"))
)
WAITING_SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
folder = Path(__file__).parent
if sys.argv[1] == "train":
    def stop(*_):
        (folder / "told").touch()
        sys.exit(75)
    signal.signal(signal.SIGTERM, stop)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    output.joinpath("model.json").write_text(json.dumps({"says": "good"}))
    output.joinpath("metrics.json").write_text(json.dumps({"accuracy": 0.5}))
else:
    import pyarrow.parquet as parquet
    said = []
    for shard in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
        said += [{"row_id": row["row_id"], "prediction": row["label"], "score": 0.9} for row in parquet.read_table(shard).to_pylist()]
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps(line) + "\\n" for line in said))
"""
WAITING_CONFIG = """
name = "{name}"
[data]
repo_id = "acme/{name}-rows"
source = "rows.csv"
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
[model]
repo_id = "acme/{name}"
"""


class Work:
    """A config whose training waits for `go`, and what is known of its runs."""

    def __init__(self, spaceport: Any, folder: Path, name: str) -> None:
        self.spaceport, self.folder, self.name = spaceport, folder, name
        (folder / "script.py").write_text(WAITING_SCRIPT)
        (folder / "rows.csv").write_text("text,label\n" + "".join(f"{name} word{row} film,{'good' if row % 2 else 'bad'}\n" for row in range(600)))
        self.config = folder / "run.toml"
        self.config.write_text(WAITING_CONFIG.format(name=name))
        self.reconnect()

    def reconnect(self) -> None:
        """To the server where it is now."""
        self.api = self.spaceport.prefect()

    def start(self, key: str) -> str:
        """Start a pipeline run and leave it; its id."""
        _, report, said = self.spaceport("run", str(self.config), "--detach", "--key", f"{self.name}-{key}")
        assert report["flow_run"], said
        return str(report["flow_run"]["id"])

    def follow(self, key: str) -> dict[str, Any]:
        """Follow the run of a key to its end; its report."""
        return self.spaceport("run", str(self.config), "--key", f"{self.name}-{key}")[1]

    def go(self) -> None:
        """Let the training end."""
        (self.folder / "go").touch()

    @property
    def starts(self) -> list[int]:
        """The pids of all trainings so far."""
        found = self.folder / "starts"
        return [int(line) for line in found.read_text().split()] if found.exists() else []

    def state(self, run_id: str) -> str:
        """The type of a run's state now."""
        return str(self.api.read_run(run_id)["state"]["type"])

    def ends(self, run_id: str) -> str:
        """Wait for the end of a run; the type of its state."""
        return str(eventually(lambda: self.state(run_id) in FINAL_STATES and self.state(run_id), SLOW_MACHINE_SECONDS))

    def children(self) -> list[Any]:
        """The training runs of this work."""
        found = self.api.find_runs(tag="spaceport")
        return [run for run in found if run["name"].startswith("train-") and run["parameters"]["config"]["name"] == self.name]

    def waits(self, run_id: str) -> bool:
        """Whether a pipeline run waits for the training now."""
        tasks = [task["name"] for task in self.api.task_runs(run_id) if task["state_type"] == "RUNNING"]
        run = self.api.read_run(run_id)
        links = self.api.artifacts(run_id, "training-run")
        return run["state"]["type"] == "RUNNING" and "train_model" in tasks and len(links) >= self.attempts(run_id)

    def attempts(self, run_id: str) -> int:
        """How often a run has begun, without the times that it only said that it lives, which the server counts too."""
        return sum(state["type"] == "RUNNING" and state["message"] != ALIVE for state in self.api.states_of(run_id))

    def commits(self) -> dict[str, list[str]]:
        """Every commit on every branch."""
        from huggingface_hub import HfApi

        api, found = HfApi(endpoint=self.spaceport.endpoint, token=self.spaceport.key("hub-write")), {}
        for repo_type, repo_id in (("dataset", f"acme/{self.name}-rows"), ("model", f"acme/{self.name}")):
            for branch in api.list_repo_refs(repo_id, repo_type=repo_type).branches:
                found[f"{repo_type} {branch.name}"] = [commit.title for commit in api.list_repo_commits(repo_id, repo_type=repo_type, revision=branch.name)]
        return found

    def keys(self) -> Counter[str]:
        """How many commits of the Hub carry each step key."""
        return Counter(re.findall(r"Spaceport-Key: (\w+)", "\n".join(self._messages())))

    def _messages(self) -> list[str]:
        from huggingface_hub import HfApi

        api, found = HfApi(endpoint=self.spaceport.endpoint, token=self.spaceport.key("hub-write")), {}
        for repo_type, repo_id in (("dataset", f"acme/{self.name}-rows"), ("model", f"acme/{self.name}")):
            for branch in api.list_repo_refs(repo_id, repo_type=repo_type).branches:
                found |= {commit.commit_id: commit.message for commit in api.list_repo_commits(repo_id, repo_type=repo_type, revision=branch.name)}
        return list(found.values())

    @staticmethod
    def process_of(run_id: str) -> psutil.Process:
        """The process that the worker started for a run."""

        def find() -> psutil.Process | None:
            for process in psutil.process_iter(["cmdline"]):
                with contextlib.suppress(psutil.Error):
                    if "infra.compute.process.engine" in (process.info["cmdline"] or []) and process.environ().get("PREFECT__FLOW_RUN_ID") == run_id:
                        return process
            return None

        found: psutil.Process = eventually(find)
        return found

    def daemon(self, name: str) -> psutil.Process:
        """One of the stack's programs."""
        return self.spaceport.daemon(name)


@pytest.fixture
def work(spaceport: Spaceport, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Work]:
    """A config of its own whose training waits for `go`, and nothing of it left running."""
    found = Work(spaceport, tmp_path, f"work-{re.sub(r'[^a-zA-Z0-9]+', '-', request.node.name)[5:45].strip('-')}")
    yield found
    found.go()


@pytest.fixture(scope="module")
def team(spaceport: Spaceport, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Any:
    """A team of the module's own, which has pushed."""
    from tests.pipeline.team import Team

    found = Team(spaceport, tmp_path_factory.mktemp("team"), f"pushed-{request.module.__name__.rpartition('_')[2]}")
    found.push("first")
    return found


@pytest.fixture(scope="module")
def first(team: Any) -> tuple[int, dict[str, Any]]:
    """What the first push did: exit code and report."""
    found: tuple[int, dict[str, Any]] = team.trigger("1")
    return found


@pytest.fixture
def forge() -> Iterator[Any]:
    """A GitHub."""
    from tests.github_api.server import running_forge

    with running_forge() as found:
        yield found


@pytest.fixture
def prefect(spaceport: Spaceport) -> PrefectApi:
    """The stack's Prefect server."""
    return spaceport.prefect()


@pytest.fixture(scope="module")
def yard_pool(spaceport: Spaceport) -> str:
    """The yard's pool, with a deployment."""
    from tests.pipeline.yard import POOL

    api = spaceport.prefect()
    with contextlib.suppress(Conflict):  # another module has made it
        api.call("POST", "/work_pools/", {"name": POOL, "type": "process"})
    flow = api.call("POST", "/flows/", {"name": POOL})
    api.call("POST", "/deployments/", {"name": POOL, "flow_id": flow["id"], "work_pool_name": POOL})
    return POOL


@pytest.fixture
def rented(yard_pool: str, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Runs of the yard's pool and the watch over it; none of them is left open."""
    from tests.pipeline.yard import Project

    monkeypatch.setattr("infra.compute.rented.ending.SETTLE_SECONDS", 0.1)  # no run of these is about to say anything itself
    found = Project(prefect)
    yield found
    for run in prefect.find_runs(pool=yard_pool):
        prefect.set_state(run["id"], "CANCELLED", "the test is over", force=True)


CONFIG = """
name = "tiny"
[data]
repo_id = "acme/reviews"
source = "rows.csv"
[train]
recipe = "text_classification"
base_model = "acme/tiny-bert"
dtype = "float32"
[train.args]
epochs = 2
learning_rate = 3e-3
[model]
repo_id = "acme/reviews-bert"
[space]
repo_id = "acme/reviews"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These start real servers and train: give each as long as a slow machine needs."""
    for item in items:
        if "tests/pipeline/" in str(item.path).replace(os.sep, "/"):
            item.add_marker(pytest.mark.timeout(3 * SLOW_MACHINE_SECONDS))
