"""docs/bring-your-script.md says what the code does."""

import re
from pathlib import Path

from infra.compute import contract
from tasks.candidates.files import UNSAFE

PAGE = (Path(__file__).parents[2] / "docs" / "bring-your-script.md").read_text()


def test_every_variable_is_documented():
    """The page's table names each variable of the contract, and no other."""
    variables = {value for value in vars(contract).values() if isinstance(value, str) and value.startswith("SPACEPORT_")}
    assert set(re.findall(r"^\| `(SPACEPORT_[A-Z_]+)`", PAGE, re.MULTILINE)) == variables


def test_every_exit_code_is_documented():
    """The page's table has a line for each exit code of the contract."""
    codes = {value for name, value in vars(contract).items() if name.isupper() and isinstance(value, int)}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+)", PAGE, re.MULTILINE)}
    assert contract.PROGRESS_PREFIX + "{" in PAGE


def test_every_refused_format_is_documented():
    """The page lists each file name's end that is refused, and no other."""
    listed = re.search(r"By the end of the name, `([^`]+)`", PAGE)
    assert listed and set(listed[1].split()) == UNSAFE
