"""On-call at 3 a.m.: moved forwards and back through the command and a real worker, and the Space is asked what it serves. In this order."""

import json
import urllib.request
from typing import Any

import pytest

from infra.hub.client import HubClient
from infra.hub.inference_endpoint import InferenceEndpoint
from infra.prefect_api import FINAL_STATES
from tests.eventually import eventually

# A model that knows some words; the same file is what the app reads, so its scores are the model's.
SCRIPT = """
import json, os, sys
from pathlib import Path
if sys.argv[1] == "train":
    known = json.loads(Path(os.environ["SPACEPORT_CONFIG"]).read_text())["args"]["known"]
    output = Path(os.environ["SPACEPORT_OUTPUT"])
    output.joinpath("model.json").write_text(json.dumps({"good": known}))
    output.joinpath("metrics.json").write_text(json.dumps({"words": len(known)}))
    output.joinpath("handler.py").write_text(Path(__file__).with_name("handler.txt").read_text())
else:
    import pyarrow.parquet as parquet
    good, lines = json.loads(Path(os.environ["SPACEPORT_MODEL"], "model.json").read_text())["good"], []
    for shard in sorted(Path(os.environ["SPACEPORT_DATA"], "data").glob(os.environ["SPACEPORT_SPLIT"] + "-*.parquet")):
        for row in parquet.read_table(shard).to_pylist():
            share = 0.9 if any(word in row["text"] for word in good) else 0.2
            scores = {"good": share, "bad": 1 - share}
            lines.append({"row_id": row["row_id"], "prediction": max(scores, key=scores.get), "score": max(scores.values()), "scores": scores})
    Path(os.environ["SPACEPORT_PREDICTIONS"]).write_text("".join(json.dumps(line) + "\\n" for line in lines))
"""
HANDLER = """
import json
from pathlib import Path
class EndpointHandler:
    def __init__(self, path=""): self.good = json.loads(Path(path, "model.json").read_text())["good"]
    def __call__(self, data):
        share = 0.9 if any(word in data["inputs"] for word in self.good) else 0.2
        return [{"label": "good", "score": share}, {"label": "bad", "score": 1 - share}]
"""
APP = """
import json, os, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
PIN = json.load(open(".spaceport/pin.json"))
WHERE = f"{os.environ['HF_ENDPOINT']}/{PIN['model']}/resolve/{PIN['revision']}/model.json"
with urllib.request.urlopen(urllib.request.Request(WHERE, headers={"Authorization": "Bearer " + os.environ["HF_TOKEN"]})) as answer:
    GOOD = json.load(answer)["good"]
class Answer(BaseHTTPRequestHandler):
    said = {}
    def do_GET(self):
        if self.path == "/revision": self.send({**PIN, "space": os.environ["SPACE_COMMIT_SHA"]})
        elif self.path == "/": self.send("hello")
        else: self.send("event: complete\\ndata: " + json.dumps([self.said[self.path.rpartition("/")[2]]]) + "\\n\\n")
    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"][0]
        share = 0.9 if any(word in text for word in GOOD) else 0.2
        self.said[str(len(self.said))] = {"good": share, "bad": 1 - share}
        self.send({"event_id": str(len(self.said) - 1)})
    def send(self, answer):
        text = answer if isinstance(answer, str) else json.dumps(answer)
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
ThreadingHTTPServer((os.environ["GRADIO_SERVER_NAME"], int(os.environ["GRADIO_SERVER_PORT"])), Answer).serve_forever()
"""
CONFIG = """
name = "words"
[data]
repo_id = "acme/rows"
source = "rows.csv"
test_share = 0.3
[train]
code = "."
command = ["python", "script.py", "train"]
predict.command = ["python", "script.py", "predict"]
args.known = ["great"]
[model]
repo_id = "acme/words"
[space]
repo_id = "acme/words"
[endpoint]
name = "acme/words"
"""
B = ["--train.args.known", '["great", "fine"]']


@pytest.fixture(scope="module")
def words(spaceport: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run config with a script of the team's own and a Space with an app of the team's own: quick, and held to the same proof."""
    from huggingface_hub import CommitOperationAdd, HfApi

    folder = tmp_path_factory.mktemp("words")
    rows = [f"{word} film number {n},{label}" for n in range(60) for word, label in (("great", "good"), ("fine", "good"), ("awful", "bad"), ("dull", "bad"))]
    (folder / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "script.py").write_text(SCRIPT)
    (folder / "handler.txt").write_text(HANDLER)
    (folder / "run.toml").write_text(CONFIG)
    api = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
    api.create_repo("acme/words", repo_type="space", space_sdk="gradio", private=True)
    change = [CommitOperationAdd(path_in_repo="app.py", path_or_fileobj=APP.encode())]
    api.create_commit("acme/words", change, repo_type="space", commit_message="our app")
    return str(folder / "run.toml")


@pytest.fixture(scope="module")
def moved(spaceport: Any, words: str) -> dict[str, Any]:
    """A and B by runs, A again by hand, and then a rollback: the reports of all four."""
    reports = {}
    for name, command in {"a": ["run", words], "b": ["run", words, *B]}.items():
        code, reports[name], errors = spaceport(*command)
        assert (code, reports[name]["outcome"]) == (0, "promoted"), f"{reports[name]}\n{errors}"
    candidate = next(step["revision"] for step in reports["a"]["steps"] if step["name"] == "train_model")
    for name, command, outcome in (("a again", ["promote", candidate[:-30]], "promoted"), ("back", ["rollback", "acme/words"], "rolled back")):
        code, reports[name], errors = spaceport(*command)
        assert (code, reports[name]["outcome"]) == (0, outcome), f"{reports[name]}\n{errors}"
    return reports


def served(report: dict[str, Any]) -> str:
    """What the app itself says that it serves."""
    with urllib.request.urlopen(f"{report['live']['space_url']}/revision", timeout=30) as answer:
        said = json.load(answer)
    return f"{said['model']}@{said['revision']}"


def says_good(spaceport: Any, report: dict[str, Any], text: str) -> bool:
    """What the endpoint answers."""
    headers = {"authorization": f"Bearer {spaceport.key('hub-read')}"}
    request = urllib.request.Request(report["live"]["endpoint_url"], json.dumps({"inputs": text}).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bool(json.load(answer)[0]["score"] > 0.5)


def main_of(spaceport: Any) -> list[str]:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write"))
    return [commit.commit_id for commit in api.list_repo_commits("acme/words")]


def test_there_back_and_there_again_are_moves_and_a_rollback_is_one_more(spaceport: Any, moved: dict[str, Any]) -> None:
    """Four commits on main in this order, and the app serves the last one: the model that was live before, as a new revision."""
    models = [moved[name]["live"]["model"] for name in ("a", "b", "a again", "back")]
    assert [f"acme/words@{sha}" for sha in main_of(spaceport)[:4]] == models[::-1]
    assert served(moved["back"]) == models[3]
    assert [moved[name]["live"]["endpoint"] for name in ("a", "b", "a again", "back")] == models
    assert says_good(spaceport, moved["back"], "a fine film") and not says_good(spaceport, moved["back"], "a dull film")
    assert moved["back"]["steps"][1]["outcome"] == "published"


def test_what_was_rolled_back_stays_so_when_its_config_runs_again(spaceport: Any, words: str, moved: dict[str, Any]) -> None:
    """The rerun trains nothing, is kept out with exit code 2, and moves neither model nor Space."""
    before = main_of(spaceport)
    code, report, errors = spaceport("run", words)
    assert (code, report["outcome"]) == (2, "kept"), errors
    assert {step["name"]: step["outcome"] for step in report["steps"]}["train_model"] == "reused"
    assert main_of(spaceport) == before and served(moved["back"]) == moved["back"]["live"]["model"]


def test_status_says_what_is_live_and_from_which_run(spaceport: Any, moved: dict[str, Any]) -> None:
    """The rollback's own run is named, the Space agrees, and what was taken back is listed."""
    code, status, errors = spaceport("status")
    assert code == 0, errors
    live = next(entry for entry in status["live"] if entry["standing"]["repo"] == "acme/words")
    assert live["standing"]["model"] == live["standing"]["space"]["serves"] == moved["back"]["live"]["model"]
    assert (live["standing"]["move"], live["run"]["name"]) == ("rollback", moved["back"]["flow_run"]["name"])
    assert len(live["standing"]["rejected"]) == 1 and live["standing"]["problem"] is None and status["prefect"] is None


def test_status_says_how_an_endpoint_stands(spaceport: Any, words: str, moved: dict[str, Any]) -> None:
    """Its stage, its price and what it serves; a problem when it is behind or paused, none while it only sleeps."""
    from huggingface_hub import HfApi

    live, hub = moved["back"]["live"]["model"], HubClient(HfApi(endpoint=spaceport.endpoint, token=spaceport.key("hub-write")))
    service, older = InferenceEndpoint(hub, "acme/words").api, moved["b"]["live"]["model"]

    def standing() -> tuple[dict[str, Any], str | None]:
        code, status, errors = spaceport("status", words)
        assert code == 0, errors
        found = status["live"][0]["standing"]
        return found["endpoint"], found["problem"]

    endpoint, problem = standing()
    assert (endpoint["stage"], endpoint["serves"], problem) == ("running", live, None) and endpoint["usd_per_hour"] > 0
    service.update_inference_endpoint("words", namespace="acme", revision=older.partition("@")[2])
    endpoint, problem = standing()
    assert endpoint["serves"] == older and problem and problem.startswith(f"the endpoint is behind: it is at {older.partition('@')[2][:8]}") and live in problem
    service.update_inference_endpoint("words", namespace="acme", revision=live.partition("@")[2])
    service.scale_to_zero_inference_endpoint("words", namespace="acme")
    assert standing()[1] is None
    service.pause_inference_endpoint("words", namespace="acme")
    assert standing()[1] == "the endpoint is paused."
    service.resume_inference_endpoint("words", namespace="acme")
    eventually(lambda: standing()[0]["stage"] == "running")


def test_status_answers_from_the_hub_alone_when_prefect_is_away(spaceport: Any, words: str, moved: dict[str, Any]) -> None:
    """With nobody at the Prefect address it says so, and still says what is live."""
    away = type(spaceport)(spaceport.home, spaceport.environment | {"PREFECT_API_URL": "http://127.0.0.1:9/api"})
    code, status, errors = away("status", words)
    assert code == 0 and "unhealthy" in status["prefect"], errors
    assert status["live"][0]["standing"]["model"] == moved["back"]["live"]["model"] and status["live"][0]["run"] is None


def test_show_and_verify_follow_what_is_live_to_its_source(spaceport: Any, moved: dict[str, Any]) -> None:
    """From the Space to the rows, and every hash and key on the way holds."""
    space = moved["back"]["live"]["space"]
    code, lineage, errors = spaceport("show", space)
    told = {link["name"]: link["value"] for link in lineage["links"]}
    dataset = next(step["revision"] for step in moved["a"]["steps"] if step["name"] == "data_register")
    assert code == 0 and (told["dataset"], told["promoted"], told["space"]) == (dataset, moved["back"]["live"]["model"], space), errors
    code, verified, errors = spaceport("verify", space)
    assert code == 0 and verified["holds"] and verified["error"] is None, errors
    code, refused, _ = spaceport("verify", "acme/words@" + "0" * 40)
    assert (code, refused["error"]["kind"]) == (1, "bad input")


def test_a_retry_of_a_rollback_goes_no_further_back(spaceport: Any, moved: dict[str, Any]) -> None:
    """*Retry* on the completed run finds its own move done: no commit, the same revision live."""
    api = spaceport.prefect()
    before, run_id = main_of(spaceport), moved["back"]["flow_run"]["id"]
    api.retry_run(run_id, "retried by somebody half asleep")
    run = eventually(lambda: (run := api.read_run(run_id))["run_count"] == 2 and run["state"]["type"] in FINAL_STATES and run)
    assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Unchanged")
    assert main_of(spaceport) == before and served(moved["back"]) == moved["back"]["live"]["model"]


def test_with_nothing_left_to_go_back_to_nothing_is_started(spaceport: Any, moved: dict[str, Any]) -> None:
    """What was live before was taken back already: exit code 1, the reason, and no run."""
    code, report, _ = spaceport("rollback", "acme/words")
    assert (code, report["flow_run"], report["error"]["kind"]) == (1, None, "bad input") and "nothing was live before" in report["error"]["message"]


def test_the_pages_of_a_run_say_what_was_moved(spaceport: Any, moved: dict[str, Any]) -> None:
    """On the run page: from which revision to which, and the report."""
    api = spaceport.prefect()
    run_id = moved["back"]["flow_run"]["id"]
    move, report = (api.artifacts(run_id, key)[0]["data"] for key in ("move", "report"))
    assert (move.startswith("Back to `acme/words@") and moved["a again"]["live"]["model"] in move and "Rolled back" in report) or "Unchanged" in report
