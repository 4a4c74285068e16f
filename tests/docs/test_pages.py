"""Whatever README and docs show is there: links, files, fields, settings, commands, configs, programs."""

import configparser
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flows.run_config import RunConfig
from infra.hub.embedded.users import Users
from infra.settings import PROJECT, process_environment
from tests.docs.commands import READERS, complaint, exists, is_field
from tests.docs.pages import PAGES, Block, Page, commands_of
from tests.docs.pages import page as page_of

SMALLEST = {"name": "x", "dataset": f"datasets/a/b@{'0' * 40}", "train": {"recipe": "text_classification", "base_model": "a/b"}, "model": {"repo_id": "a/b"}}
ROOMS = ("flows", "tasks", "deployments", "infra", "tests", "benchmarks", "docs", "configs", ".github")
# Bare names of files that are somebody else's: a reader's own, or what a run, a model or a Space holds.
THEIRS = {
    "run_classification.py",
    "train.py",
    "predict.py",
    "handler.py",
    "script.py",
    "clean.py",
    "metrics.json",
    "config.json",
    "head.json",
    "step.json",
    "access.log",
    "server.log",
    "run.toml",
}
# Modules and variables that a page itself makes: tests/infra/compute/test_add_a_target.py follows it.
MADE_BY_A_PAGE = ("infra.compute.shed", "infra/compute/shed", "infra/compute/<name>")
INDEXES = ("README.md", "docs/decisions/README.md")
TESTS = "\n".join(path.read_text() for path in (PROJECT / "tests").rglob("*.py"))


def test_links_lead_somewhere(page: Page) -> None:
    """A relative link names a file that is there, and a heading of it."""
    for link in page.links:
        address, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.path.parent / address).resolve() if address else page.path
        assert target.exists(), link
        assert not anchor or anchor in Page(target).anchors, link


def test_what_stands_in_backticks_is_there(page: Page) -> None:
    """Files, fields of a run config, settings and commands are called what they are called."""
    if page.name != "CHANGELOG.md":  # which tells of what was
        assert [found for word in page.words if (found := _wrong_word(word))] == []


def test_its_blocks_are_what_they_say(page: Page) -> None:
    """Configs are valid, programs compile and import what there is, commands are taken by their program's parser."""
    for block in page.blocks:
        assert block.language in LANGUAGES, f"line {block.line}: a block of {block.language or 'no language'} has nobody who looks at it"
        LANGUAGES[block.language](block)


def _wrong_word(word: str) -> str | None:
    """What is wrong with words in backticks; None for nothing, and for what names nothing of ours."""
    if word.startswith(MADE_BY_A_PAGE):
        return None
    first = re.sub(r"^\S*/bin/", "", re.sub(r"^\*/10 \* \* \* \* ", "", word)).split(" ")[0]
    if " " in word and (first in (*READERS, "set") or "=" in first):
        return next((f"{word}: {said}" for command in commands_of(word.replace("*/10 * * * * ", "")) if (said := complaint(command))), None)
    if re.fullmatch(rf"({'|'.join(map(re.escape, ROOMS))})/[\w./*-]*", word):
        return None if exists(word) or exists(word.rstrip("/")) else f"{word} is not there"
    if re.fullmatch(r"[\w-]+\.(py|toml|yaml|yml|md|tf)", word):
        return None if word in THEIRS or any(path.name == word for path in _files()) else f"{word}: no file of that name"
    named = re.fullmatch(rf"({'|'.join(RunConfig.model_fields)})\.([a-z_.]+)", word) or re.fullmatch(r"\[(\w+)\]()", word)
    if named:
        return None if is_field(f"{named[1]}.{named[2]}".strip(".")) else f"{word} is no field of a run config"
    return next((f"{name} is no setting" for name in re.findall(r"SPACEPORT_[A-Z_]+", word) if name not in _sources()), None)


def _files() -> list[Path]:
    return [path for room in ROOMS for path in (PROJECT / room).rglob("*.*")] + [path for path in PROJECT.iterdir() if path.is_file()]


def _sources() -> str:
    found = [
        path for room in ("flows", "tasks", "deployments", "infra") for path in (PROJECT / room).rglob("*") if path.suffix in (".py", ".yaml", ".tf", ".yml")
    ]
    return "\n".join(path.read_text() for path in [*found, *(PROJECT / ".github").rglob("*.yml")])


def _toml(block: Block) -> None:
    """A run config, what is missing taken from the smallest one; or the users of an embedded Hub, which a test below starts."""
    told = tomllib.loads(block.text)
    if not {"users", "publishers"} & told.keys():
        RunConfig.model_validate(SMALLEST | ({"dataset": None} if "data" in told else {}) | told)


def _python(block: Block) -> None:
    """A whole program is run by the test that names it; of the rest the names that it imports are there."""
    compile(block.text, str(block.line), "exec")
    if block.program:
        assert block.program in TESTS, f"no test runs {block.program}"
        return
    for module, names in re.findall(r"^from ([\w.]+) import (.+)$", block.text, re.MULTILINE):
        if module.partition(".")[0] in ROOMS and not module.startswith(MADE_BY_A_PAGE):
            assert [name for name in names.split(", ") if not hasattr(importlib.import_module(module), name)] == [], module


def _shell(block: Block) -> None:
    """Commands, or the lines of a service's environment file."""
    settings = re.findall(r"^(PREFECT_\w+)=", block.text, re.MULTILINE)
    if settings:
        from prefect.settings import Settings
        from prefect.settings.legacy import _get_settings_fields

        assert set(settings) <= _get_settings_fields(Settings).keys()
    assert [name for name in re.findall(r"SPACEPORT_[A-Z_]+", block.text) if name not in _sources()] == []
    assert [said for command in commands_of(block.text) if (said := complaint(command))] == []


def _unit(block: Block) -> None:
    """A systemd unit: sections and keys, and a command of ours or Prefect's."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block.text)
    assert unit.sections() == ["Unit", "Service", "Install"]
    assert complaint(unit["Service"]["ExecStart"].split()) is None


def _text(block: Block) -> None:
    """A picture or an output; the folders of a list are there."""
    assert [folder for folder in re.findall(r"^([\w./-]+/) ", block.text, re.MULTILINE) if not (PROJECT / folder).is_dir()] == []


def _nginx(block: Block) -> None:
    """No nginx is here to read it: its braces are even."""
    assert block.text.count("{") == block.text.count("}")


def _yaml(block: Block) -> None:
    """Manifests: each a mapping that is read, of settings that are ours."""
    assert [part for part in yaml.safe_load_all(block.text) if not isinstance(part, dict)] == []
    assert [name for name in re.findall(r"SPACEPORT_[A-Z_]+", block.text) if name not in _sources()] == []


LANGUAGES: dict[str, Callable[[Block], None]] = {
    "toml": _toml,
    "yaml": _yaml,
    "python": _python,
    "sh": _shell,
    "console": _shell,
    "ini": _unit,
    "text": _text,
    "nginx": _nginx,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks for a page is one test per page."""
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", PAGES, ids=str)


def test_the_users_of_the_embedded_hubs_page_are_read(tmp_path: Path) -> None:
    """The Hub reads the page's users and publishers as they stand, with a key where the page says."""
    text = "\n".join(block.text for block in page_of("docs/embedded-hub.md").blocks if block.language == "toml")
    (tmp_path / "users.toml").write_text(text)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    (tmp_path / "issuer.pem").write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    users = Users.load(tmp_path / "users.toml", tmp_path / "kept.toml")
    assert users.default_token().startswith("hf_")


def test_the_pages_own_test_passes(tmp_path: Path) -> None:
    """The pytest plugin as docs/embedded-hub.md shows it, in a project that is not ours."""
    (block,) = [block for block in page_of("docs/embedded-hub.md").blocks if block.language == "python"]
    (tmp_path / "test_page.py").write_text(f"import os\nimport subprocess\nimport sys\n\n{block.text}")
    (tmp_path / "train.py").write_text("import huggingface_hub\nassert huggingface_hub.whoami()['name'] == 'spaceport'\n")
    program = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(program, cwd=tmp_path, env=process_environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout


def test_pictures_are_small_and_shown() -> None:
    """A picture that no page shows is dead weight in every clone, and one above 150 kB is weight enough."""
    shown = {(found.path.parent / link).resolve() for found in PAGES for link in found.links if link.endswith(".png")}
    pictures = sorted((PROJECT / "docs" / "images").iterdir())
    assert [picture.name for picture in pictures if picture not in shown or picture.stat().st_size > 150_000] == []


def test_every_page_is_in_the_index() -> None:
    """README leads to each page of docs, and the decisions' own index to each decision."""
    linked = {
        (found.path.parent / link.partition("#")[0]).resolve() for name in INDEXES for found in (page_of(name),) for link in found.links if "://" not in link
    }
    assert [found.name for found in PAGES if found.name.startswith("docs/") and found.path not in linked] == []
