"""How a command is started, and PEP 723 headers."""

import sys
import zipfile

import pytest

from infra.compute.process.command import find_uv, runnable
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from infra.errors import BadInput

HEADER = '# /// script\n# requires-python = ">=3.8"\n# dependencies = [{}]\n# ///\n'


def test_python_is_our_own_interpreter(tmp_path):
    """`python`, and a bare script, run under the interpreter that runs us, whatever the PATH says; other programs are left alone."""
    (tmp_path / "train.py").write_text("print(1)")
    assert runnable(["python", "train.py", "--fast"], tmp_path) == [sys.executable, "train.py", "--fast"]
    assert runnable(["train.py"], tmp_path) == [sys.executable, "train.py"]
    assert runnable(["python", "-m", "pkg"], tmp_path) == [sys.executable, "-m", "pkg"]
    assert runnable(["torchrun", "train.py"], tmp_path) == ["torchrun", "train.py"]


def test_an_empty_command_is_bad_input(tmp_path):
    """There is no command to guess."""
    with pytest.raises(BadInput, match=r"train.command is empty"):
        runnable([], tmp_path)


def test_a_broken_header_is_bad_input(tmp_path):
    """A header that isn't TOML is named before anything runs."""
    (tmp_path / "train.py").write_text("# /// script\n# dependencies = [\n# ///\n")
    with pytest.raises(BadInput, match=r"train.py: its `# /// script` header is no TOML"):
        runnable(["python", "train.py"], tmp_path)


def test_without_uv_a_header_must_be_met_here(tmp_path):
    """With no uv at hand, declared packages that are installed will do, and others are named."""
    (tmp_path / "train.py").write_text(HEADER.format('"pydantic>=2"'))
    (tmp_path / "other.py").write_text(HEADER.format('"no-such-package-of-ours>=2"'))
    assert runnable(["python", "train.py"], tmp_path, lambda: None) == [sys.executable, "train.py"]
    with pytest.raises(BadInput, match=r"other.py declares no-such-package-of-ours>=2, and here is none. Install uv"):
        runnable(["python", "other.py"], tmp_path, lambda: None)


@pytest.mark.skipif(find_uv() is None, reason="uv is not installed")
async def test_a_header_gives_the_script_its_own_packages(tmp_path):
    """A script that declares a package we don't have runs with it, through uv, and still sees its arguments and the contract."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "only_for_this_script-1.0-py3-none-any.whl", "w") as wheel:
        facts = "only_for_this_script-1.0.dist-info"
        wheel.writestr("only_for_this_script.py", "answer = 42\n")
        wheel.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: only-for-this-script\nVersion: 1.0\n")
        wheel.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{facts}/RECORD", "")
    script = "import os, sys, only_for_this_script as o\nprint(o.answer, sys.argv[1:], os.environ['SPACEPORT_DATA'])\n"
    (tmp_path / "train.py").write_text(HEADER.format('"only-for-this-script==1.0"') + script)
    told = {"SPACEPORT_DATA": "/data", "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels), "UV_CACHE_DIR": str(tmp_path / "cache")}
    lines = []
    await run_script(["python", "train.py", "--fast"], script_environment(told), tmp_path, on_line=lines.append)
    assert lines[-1] == "42 ['--fast'] /data"
