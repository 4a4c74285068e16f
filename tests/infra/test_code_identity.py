"""What counts as a user's code: an edit to it is a change, an edit beside it is none."""

from pathlib import Path

import pytest

from infra.code_identity import code_identity
from infra.errors import BadInput
from infra.package_versions import package_versions

FILES = {
    "train.py": "import os\nimport helper\nfrom pkg import model\nfrom pkg.deep.inner import x as y\nimport yaml\n",
    "helper.py": "from second import thing\n",
    "second.py": "thing = 1\n",
    "predict.py": "import importlib\nlate = importlib.import_module('late')\n",
    "late.py": "",
    "pkg/__init__.py": "",
    "pkg/model.py": "from . import layers\nfrom .deep import inner\n",
    "pkg/layers.py": "",
    "pkg/unused.py": "",
    "pkg/deep/__init__.py": "from ..top import z\n",
    "pkg/deep/inner.py": "x = 1\n",
    "pkg/top.py": "z = 1\n",
    "notes.md": "unrelated\n",
    "conf/a.yaml": "a: 1\n",
    "uv.lock": 'version = 1\n[[package]]\nname = "PyYAML"\nversion = "0.0.1"\n[[package]]\nname = "unrelated"\nversion = "1"\n',
}
CODE = {"train.py", "helper.py", "second.py", "predict.py", "late.py", "conf/a.yaml"} | {
    f"pkg/{name}" for name in ("__init__.py", "model.py", "layers.py", "deep/__init__.py", "deep/inner.py", "top.py")
}


@pytest.fixture
def project(tmp_path):
    """A small project of a user."""
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path


def identity(folder: Path):
    """The identity of the project's two commands."""
    return code_identity(["python", "train.py", "--config", "conf/a.yaml"], folder, extra_commands=[["python", "predict.py"]])


def test_code_is_what_the_commands_import(project):
    """The scripts, the local modules they import, transitively and relatively, and the files that the commands name; nothing else."""
    assert set(identity(project).files) == CODE


@pytest.mark.parametrize("name", sorted(CODE))
def test_an_edit_to_code_is_a_change(project, name):
    """Any byte of the script, of a module it imports, or of a transitive one changes the identity, and only that file is named."""
    before = identity(project)
    (project / name).write_text((project / name).read_text() + "# edited\n")
    after = identity(project)
    assert after.digest != before.digest
    assert {file for file in after.files if after.files[file] != before.files.get(file)} == {name}


@pytest.mark.parametrize("name", ["notes.md", "pkg/unused.py", "new_module.py", "data.csv"])
def test_an_edit_to_an_unrelated_file_is_none(project, name):
    """A file that the script doesn't reach may change, come and go."""
    before = identity(project)
    (project / name).write_text("something else\n")
    assert identity(project) == before


def test_a_changed_locked_package_is_a_change(project):
    """The lock's version of an imported package counts; that of another package doesn't."""
    before = identity(project)
    assert list(before.packages) == ["pyyaml"]
    lock = project / "uv.lock"
    lock.write_text(lock.read_text().replace('"unrelated"\nversion = "1"', '"unrelated"\nversion = "2"'))
    assert identity(project) == before
    lock.write_text(lock.read_text().replace("0.0.1", "0.0.2"))
    assert identity(project).packages["pyyaml"] == before.packages["pyyaml"].replace("0.0.1", "0.0.2")


def test_include_adds_files_and_stays_inside(project):
    """Globs add what the imports don't show; one that matches nothing or leaves the folder is an error."""
    assert "notes.md" in code_identity(["python", "train.py"], project, ["*.md"]).files
    with pytest.raises(BadInput, match="matches no file"):
        code_identity(["python", "train.py"], project, ["*.txt"])
    with pytest.raises(BadInput, match="leaves the code folder"):
        code_identity(["python", "train.py"], project, ["../*"])


def test_a_module_is_followed_like_a_script(project):
    """`-m package` starts at the package's `__main__`."""
    (project / "pkg/__main__.py").write_text("from pkg import unused\n")
    assert {"pkg/__main__.py", "pkg/__init__.py", "pkg/unused.py"} <= set(code_identity(["python", "-m", "pkg"], project).files)


def test_the_place_of_the_folder_is_no_part_of_it(project, tmp_path_factory):
    """The same files elsewhere are the same code."""
    import shutil

    elsewhere = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.copytree(project, elsewhere)
    assert identity(elsewhere) == identity(project)


def test_wrong_scripts_are_named(project):
    """A script that isn't there, or isn't Python, is said before anything runs."""
    with pytest.raises(BadInput, match=r"holds no trian.py"):
        code_identity(["python", "trian.py"], project)
    (project / "helper.py").write_text("def f(:\n")
    with pytest.raises(BadInput, match=r"helper.py is no Python that can be read"):
        identity(project)


def test_package_versions_name_what_is_installed():
    """An installed package has its version without its build; one that differs from the lock shows both; an unknown one is left out."""
    assert package_versions(["pydantic", "no-such-package"], {}).keys() == {"pydantic"}
    assert package_versions(["pydantic"], {"pydantic": "0.1"})["pydantic"].endswith(" (locked 0.1)")
    assert package_versions(["no-such-package"], {"no-such-package": "2"}) == {"no-such-package": "2"}
    assert "+" not in package_versions(["torch"], {}).get("torch", "")
