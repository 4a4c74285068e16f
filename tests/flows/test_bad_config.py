"""Bad configs, names, tokens and revisions by the dozen: a valid run, spoilt by a seed, is one line that says what to do, and exit code 1."""

import io
import json
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.hub.embedded.process import EmbeddedHub
from infra.settings import process_environment

WRITE, READ, SCOPED, READING, STRANGER, MEMBER = (f"hf_{name}_0123456789" for name in ("write", "read", "scoped", "reading", "stranger", "member"))
USERS = f"""
default = "alice"
[users.alice]
tokens = [
    {{ token = "{WRITE}", role = "write" }},
    {{ token = "{READ}", role = "read" }},
    {{ token = "{SCOPED}", role = "fine-grained", scopes = [{{ on = "datasets/acme/taken", may = ["read", "write"] }}] }},
    {{ token = "{READING}", role = "fine-grained", scopes = [{{ on = "acme", may = ["read"] }}] }},
]
[users.mallory]
tokens = [{{ token = "{STRANGER}", role = "write" }}]
[users.bob]
tokens = [{{ token = "{MEMBER}", role = "write" }}]
[organisations.acme]
members = {{ alice = "admin", bob = "read" }}
[organisations.rivals]
members = {{ mallory = "admin" }}
"""
VALID = {
    "name": "reviews",
    "data": {"repo_id": "acme/reviews", "source": "rows.csv", "labels": ["good", "bad"]},
    "train": {"recipe": "text_classification", "base_model": "acme/base", "dtype": "float32", "args": {"epochs": 1}},
    "model": {"repo_id": "acme/reviews-model"},
    "gate": {"margin": 0.01},
    "space": {"repo_id": "acme/reviews-space"},
}
TOML = """name = "reviews"
[data]
repo_id = "acme/reviews"
source = "rows.csv"
[train]
recipe = "text_classification"
base_model = "acme/base"
[model]
repo_id = "acme/reviews-model"
"""


@dataclass
class Case:
    """A spoilt run: what is written, who asks, and what the answer must name."""

    says: str  # part of the one line
    config: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None  # of the file, instead of `config`
    suffix: str = ".yaml"
    flags: tuple[str, ...] = ()
    token: str = WRITE
    kind: str = "bad input"


def changed(path: str, value: Any, says: str | None = None, **more: Any) -> Case:
    """The valid config with one field of another value."""
    config: dict[str, Any] = json.loads(json.dumps(VALID))
    *sections, name = path.split(".")
    place = config
    for section in sections:
        place = place.setdefault(section, {})
    place[name] = value
    return Case(says or path, config, **more)


def swapped(word: str, random: random.Random) -> str:
    """A typo: two neighbouring letters change places."""
    places = [place for place in range(len(word) - 1) if word[place] != word[place + 1]]
    place = random.choice(places)
    return word[:place] + word[place + 1] + word[place] + word[place + 2 :]


def bad_config(random: random.Random, seed: int) -> Case:
    """Files that are none, fields that are none, sections that are missing or exclude each other."""
    field_name = random.choice(["source", "recipe", "base_model", "repo_id"])
    typo = swapped(field_name, random)
    section = random.choice(["train", "model"])
    place = random.randrange(60, 110)
    return [
        lambda: Case(f"{typo}", content=TOML.replace(field_name, typo, 1).encode(), suffix=".toml"),
        lambda: Case("not TOML", content=TOML.replace(f"[{section}]", f"[{section}").encode(), suffix=".toml"),
        lambda: Case("utf-8", content=TOML.encode()[:place] + b"\xe9\xff" + TOML.encode()[place:], suffix=".toml"),
        lambda: changed("train.args." + swapped("epochs", random), 3, "epochs"),
        lambda: Case("needs a value", VALID, flags=(f"--train.{random.choice(['seed', 'threads'])}",)),
        lambda: Case("overwrite", content=TOML.replace("[data]", 'name = "again"\n[data]').encode(), suffix=".toml"),
        lambda: Case("name", content=b"", suffix=random.choice([".toml", ".yaml"])),
        lambda: changed("dataset", f"datasets/acme/taken@{random.randbytes(20).hex()}", "exactly one of data"),
        lambda: changed("train.command", ["python", "train.py"], "exactly one of recipe and command"),
        lambda: Case("list", content=yaml.safe_dump([VALID] * random.randrange(1, 4)).encode()),
    ][seed]()


def bad_type(random: random.Random, seed: int) -> Case:
    """Values of the wrong type."""
    word = f"word{random.randrange(1000)}"
    return [
        lambda: changed("train.seed", word),
        lambda: changed("train.threads", random.randrange(1, 9) + 0.5),
        lambda: changed("train.args", [1, word]),
        lambda: changed("data.labels", word),
        lambda: changed(random.choice(["train", "model", "gate", "space"]), word, word),
        lambda: changed("gate.margin", word),
        lambda: changed("train.args.epochs", word),
        lambda: changed("data.source", random.randrange(100)),
        lambda: changed("name", None),
        lambda: changed("space.examples", {"one": word}),
    ][seed]()


def bad_range(random: random.Random, seed: int) -> Case:
    """Numbers and choices outside what is allowed, infinities among them."""
    odd = random.choice([float("nan"), float("inf")])
    return [
        lambda: changed("train.seed", random.choice([-1, 2**32])),
        lambda: changed("train.threads", random.choice([0, -3, 513])),
        lambda: changed("data.test_share", random.choice([1.0, -0.1, 7])),
        lambda: changed("data.validation_share", 0.95, "test_share"),
        lambda: changed("gate.margin", odd),
        lambda: changed("gate.confidence", random.choice([0.5, 1, 1.5])),
        lambda: changed("train.args.learning_rate", random.choice([0, -1e-4, 2, odd])),
        lambda: changed("space.startup_timeout_seconds", random.choice([0, -5, odd])),
        lambda: changed("data.minimum_rows", random.randrange(61, 999), "60"),
        lambda: changed("gate.metric", random.choice(["f1", "acuracy", "auc"])),
    ][seed]()


def bad_repo_name(random: random.Random, seed: int) -> Case:
    """Names that the Hub has no repository for, in each place where one is named."""
    place = ["data.repo_id", "model.repo_id", "space.repo_id", "train.base_model"][(seed + random.randrange(4)) % 4]
    name = [
        "reviews",
        "acme/team/reviews",
        "acme/my reviews",
        "../../etc/passwd",
        "acme/reviews.git",
        "acme/re--views",
        "acme/",
        "acme/" + "x" * random.randrange(97, 200),
        "https://huggingface.co/acme/reviews",
        random.choice(["acme/-reviews", "acme/reviews.", "acmé/reviews", "acme/re\nviews", "acme/.."]),
    ][seed]
    return changed(place, name)


def bad_token(random: random.Random, seed: int) -> Case:
    """Tokens that aren't known, aren't tokens, or may not do this."""
    unknown = f"hf_{random.randbytes(17).hex()}"
    return [
        lambda: Case("token", VALID, token=unknown, kind="auth"),
        lambda: Case("read", VALID, token=READ, kind="auth"),
        lambda: Case("acme/reviews", VALID, token=SCOPED, kind="auth"),
        lambda: Case("acme/", VALID, token=READING, kind="auth"),
        lambda: Case("acme", VALID, token=STRANGER, kind="auth"),
        lambda: Case("acme", VALID, token=MEMBER, kind="auth"),
        lambda: changed(random.choice(["data", "model", "space"]) + ".repo_id", f"rivals/x{random.randrange(1000)}", "rivals", kind="auth"),
        lambda: Case("HF_TOKEN", VALID, token=WRITE + random.choice(["\n", "\r\n"]) + "x", kind="auth"),
        lambda: Case("HF_TOKEN", VALID, token=random.choice(["hf_ünknown", f"“{unknown}”", "Bearer " + unknown]), kind="auth"),
        lambda: Case("HF_TOKEN", VALID, token="", kind="auth"),
    ][seed]()


def bad_revision(random: random.Random, seed: int) -> Case:
    """Revisions that aren't there, aren't revisions, are foreign, gated, or hold no safetensors."""
    sha = random.randbytes(20).hex()

    def dataset(text: str, says: str | None = None) -> Case:
        config: dict[str, Any] = {name: value for name, value in VALID.items() if name != "data"}
        return Case(says or text, config | {"dataset": text})

    return [
        lambda: changed("train.base_model", f"acme/base@{random.choice(['v9', 'nope', sha])}", "acme/base@"),
        lambda: changed("train.base_model", random.choice(["acme/nobody", "rivals/hidden"]), "is not on"),
        lambda: changed("train.base_model", "acme/pickled", "safetensors"),
        lambda: changed("train.base_model", "rivals/gated", "rivals/gated", kind="auth"),
        lambda: dataset(f"datasets/acme/taken@{random.choice(['main', sha[:7], sha[:39], sha.upper()])}"),
        lambda: dataset(random.choice([f"acme/taken@{sha}", f"spaces/acme/taken@{sha}"])),
        lambda: dataset(f"datasets/acme/taken@{sha}"),
        lambda: dataset(f"datasets/{random.choice(['acme/nothing', 'rivals/hidden'])}@{sha}"),
        lambda: changed("data.source", f"hf://datasets/acme/taken@{random.choice(['v9', sha])}/rows.csv", "acme/taken"),
        lambda: changed("data.source", random.choice(["hf://datasets/acme/nothing", "hf://acme/taken", "hf://datasets/rivals/hidden@main"]), "data"),
    ][seed]()


CLASSES = [bad_config, bad_type, bad_range, bad_repo_name, bad_token, bad_revision]


@dataclass
class World:
    """A Hub with users, what others have put there, and the `spaceport` command against it."""

    hub: EmbeddedHub
    folder: Path

    def files(self) -> dict[str, int]:
        """Every file that the Hub keeps, but its logs."""
        return {str(path): path.stat().st_size for path in self.hub.root.rglob("*") if path.is_file() and path.suffix != ".log"}

    def write(self, case: Case) -> Path:
        """The config file of a case, beside its rows."""
        path = self.folder / f"{uuid.uuid4().hex}{case.suffix}"
        path.write_bytes(yaml.safe_dump(case.config).encode() if case.content is None else case.content)
        return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "users.toml").write_text(USERS)
    rows = "".join(f"snippet {number} of a film,{('good', 'bad')[number % 2]}\n" for number in range(60))
    (folder / "rows.csv").write_text("text,label\n" + rows)
    with EmbeddedHub.start(folder / "hub", folder / "users.toml", ends_with_parent=True) as hub:
        ours, theirs = hub.api(WRITE), hub.api(STRANGER)
        for api, repo_id, name, options in (
            (ours, "acme/base", "model.safetensors", {}),
            (ours, "acme/pickled", "pytorch_model.bin", {}),
            (theirs, "rivals/gated", "model.safetensors", {}),
            (theirs, "rivals/hidden", "model.safetensors", {"private": True}),
        ):
            api.create_repo(repo_id, **options)
            api.upload_file(path_or_fileobj=b"\0" * 64, path_in_repo=name, repo_id=repo_id)
        theirs.update_repo_settings("rivals/gated", gated="manual")
        for api, repo_id, private in ((ours, "acme/taken", False), (theirs, "rivals/hidden", True)):
            api.create_repo(repo_id, repo_type="dataset", private=private)
            api.upload_file(path_or_fileobj=(folder / "rows.csv").read_bytes(), path_in_repo="rows.csv", repo_id=repo_id, repo_type="dataset")
        yield World(hub, folder)


def surroundings(world: World, token: str, folder: Path) -> dict[str, str]:
    """The environment in which somebody with this token works with the Hub; no Prefect server is needed for what is checked here."""
    return {
        "HF_ENDPOINT": world.hub.endpoint,
        "HF_TOKEN": token,
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
        "SPACEPORT_HOME": str(folder / "home"),
        "SPACEPORT_SPACE_TOKEN": READ,
    }


@pytest.fixture
def spaceport(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, Any, str]]:
    """The command in this process: exit code, the one object on standard output, standard error."""
    from deployments.command import main

    def run(token: str, *words: str) -> tuple[int, Any, str]:
        for name, value in surroundings(world, token, tmp_path).items():
            monkeypatch.setenv(name, value)
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        return int(ended.value.code or 0), json.loads(output.getvalue()), errors.getvalue()

    return run


def mistakes(report: Any) -> list[tuple[str, str]]:
    """Kind and message of everything that the command found wrong."""
    if "findings" in report:
        return [(found["kind"], found["message"]) for found in report["findings"] if not found["passed"]]
    return [(report["error"]["kind"], report["error"]["message"])]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("spoil", CLASSES, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_one_line_and_publishes_nothing(world: World, spaceport: Any, spoil: Callable[..., Case], seed: int) -> None:
    """`check` ends with exit code 1 and a line that names what is wrong; the Hub keeps not one file more than before."""
    case = spoil(random.Random(f"{spoil.__name__} {seed}"), seed)
    before = world.files()
    code, report, errors = spaceport(case.token, "check", str(world.write(case)), *case.flags)
    found = mistakes(report)
    print(found, errors)
    assert code == 1
    assert found and {kind for kind, _ in found} == {case.kind}
    assert case.says.lower() in found[0][1].lower()
    for _, message in found:
        assert len(message.splitlines()) == 1 and 30 < len(message) < 600
        assert "pydantic" not in message and "Traceback" not in message and (not case.token or case.token not in message + errors)
    assert "Traceback" not in errors
    assert world.files() == before


@pytest.mark.parametrize(("spoil", "seed"), [(bad_config, 0), (bad_token, 1), (bad_token, 7), (bad_revision, 6)])
def test_the_command_itself_ends_with_one_object_and_exit_code_1(world: World, tmp_path: Path, spoil: Callable[..., Case], seed: int) -> None:
    """As a process of its own: exit code 1, one JSON object on standard output, no traceback and no token on standard error."""
    case = spoil(random.Random(f"{spoil.__name__} {seed}"), seed)
    environment = process_environment(without=("SPACEPORT_SPACE_TOKEN",)) | surroundings(world, case.token, tmp_path)
    command = [sys.executable, "-m", "deployments.command", "check", str(world.write(case)), "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    kinds = {kind for kind, _ in mistakes(json.loads(done.stdout))}
    assert kinds == {case.kind}
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 1
    assert case.token not in done.stdout + done.stderr


def test_the_unspoilt_config_would_pass(world: World, spaceport: Any) -> None:
    """What the cases above spoil passes every check before, from YAML and from TOML."""
    for case in (Case("", VALID), Case("", content=TOML.encode(), suffix=".toml")):
        code, report, errors = spaceport(WRITE, "check", str(world.write(case)))
        assert code == 0, (report, errors)
