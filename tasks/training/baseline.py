"""What a bag of words makes of the same rows, measured on the idle core beside the training."""

import json
import sys
from pathlib import Path

from infra.compute import contract
from infra.compute.process.environment import script_environment
from infra.compute.process.run import run_script
from tasks.training.inputs import Columns


async def measure_baseline(data: Path, columns: Columns, folder: Path) -> dict[str, float]:
    """`{"tfidf_accuracy": …}` on the test split. Raises the error that the program's end stands for."""
    config = _write_config(columns, folder)
    environment = script_environment({contract.DATA: str(data), contract.CONFIG: str(config), contract.OUTPUT: str(folder)}, threads=1)
    await run_script([sys.executable, "-m", "tasks.recipes.tfidf_baseline"], environment, folder)
    return {str(name): float(value) for name, value in json.loads((folder / "baseline.json").read_text()).items()}


def _write_config(columns: Columns, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"args": {}, "data": {"text_column": columns.text, "label_column": columns.label, "labels": list(columns.labels)}}
    config = folder / "config.json"
    config.write_text(json.dumps(told), encoding="utf-8")
    return config
