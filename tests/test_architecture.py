"""The shape of the project holds: layers, silent and light imports, names that are nobody else's."""

import ast
import re
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from infra.settings import PROJECT, process_environment

ROOMS = ("flows", "tasks", "deployments", "infra")


def loaded_by(module: str) -> set[str]:
    """Top-level names in sys.modules after importing a module in a fresh interpreter."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=process_environment(), cwd="/")
    assert found.stderr == ""
    return set(found.stdout.split())


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("flows.pipeline", {"torch", "transformers", "datasets", "pandas", "pyarrow", "scipy", "sklearn", "gradio"}),
        ("deployments.command", {"torch", "prefect", "datasets", "pyarrow", "huggingface_hub"}),
        ("flows.planning", {"torch", "prefect", "datasets", "pyarrow", "boto3"}),  # a plan is waited for by a person
        ("flows.checking", {"torch", "datasets", "pyarrow", "boto3"}),
        ("infra.hub.ledger", {"torch", "prefect", "datasets", "pyarrow"}),
        ("infra.hub.embedded.server", {"torch", "prefect", "datasets", "pyarrow"}),
    ],
)
def test_an_import_is_silent_and_loads_only_what_it_needs(module: str, forbidden: set[str]) -> None:
    """Reading a module prints nothing and pulls in none of the heavy libraries that its callers may not have."""
    assert loaded_by(module) & forbidden == set()


def test_layers_hold() -> None:
    """deployments -> flows -> tasks -> infra, never upwards, and steps never import each other."""
    found = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stdout


def test_no_other_distribution_claims_our_names() -> None:
    """`flows`, `tasks`, `deployments` and `infra` in site-packages are nobody's but ours."""
    claims = {
        (found.metadata["Name"], room)
        for found in distributions()
        if found.metadata["Name"] != "hf-spaceport"
        for room in ROOMS
        if any(str(file).startswith(f"{room}/") for file in found.files or ())
    }
    assert claims == set()


def test_a_secret_is_compared_in_constant_time() -> None:
    """What a stranger may guess is compared by `compare_digest`: `==` answers sooner the sooner a guess is wrong. A fixed word may be."""
    found = []
    for file in (file for room in ROOMS for file in (PROJECT / room).rglob("*.py")):
        compared = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq)]
        for sides in ([node.left, *node.comparators] for node in compared):
            if not any(isinstance(side, ast.Constant) for side in sides) and any(re.search(r"secret|password|signature", ast.unparse(side)) for side in sides):
                found.append(f"{file.relative_to(PROJECT)}:{sides[0].lineno}")
    assert found == []
