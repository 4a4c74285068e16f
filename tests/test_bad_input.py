"""All classes of bad input, counted. `pytest -k bad_input_is_one_line_and_publishes_nothing` runs them."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parent
CLASSES = {
    *("bad_config", "bad_type", "bad_range", "bad_repo_name", "bad_token", "bad_revision"),
    *("bad_file", "bad_encoding", "bad_label", "bad_split", "bad_archive", "bad_exit"),
}


def test_there_are_ten_of_each_of_twelve_classes_and_more_bad_exits() -> None:
    """Twelve classes of bad input, ten cases each, and of bad exits all that were thought of; all under one promise."""
    files = ["flows/test_bad_config.py", "tasks/test_data_register_bad_input.py", "tasks/test_train_bad_exit.py"]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-k", "bad_input_is_one_line_and_publishes_nothing", *files]
    listed = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=120, check=True).stdout
    found = Counter(re.findall(r"::test_bad_input_is_one_line_and_publishes_nothing\[(bad_\w+)-\d+\]", listed))
    assert found == dict.fromkeys(CLASSES, 10) | {"bad_exit": 63} and found.total() == 173
