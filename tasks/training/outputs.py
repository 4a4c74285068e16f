"""What a training script left behind, checked before anybody relies on it."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.compute.contract import METRICS_FILE
from infra.errors import BadInput
from tasks.candidates.files import collect_files

_LARGEST_METRICS_BYTES = 5 << 20


def read_metrics(output: Path, who: str) -> dict[str, Any]:
    """The script's metrics.json. Raises BadInput unless it is an object with a number at its top, all of them finite."""
    path = output / METRICS_FILE
    if not path.is_file():
        raise BadInput(f'{who} ended well but wrote no {METRICS_FILE} into SPACEPORT_OUTPUT. Write one object of numbers, such as {{"accuracy": 0.81}}.')
    if path.stat().st_size > _LARGEST_METRICS_BYTES:
        raise BadInput(f"{who}: {METRICS_FILE} has {path.stat().st_size} bytes; at most {_LARGEST_METRICS_BYTES} are read.")
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: math.nan)
        wrong = next((name for name, value in _leaves("", metrics) if isinstance(value, float) and not math.isfinite(value)), None)
    except ValueError as error:
        raise BadInput(f"{who}: {METRICS_FILE} is no JSON: {error}.") from None
    except RecursionError:
        raise BadInput(f"{who}: {METRICS_FILE} is no JSON of ours: it is nested too deeply. Write one object of numbers.") from None
    if not isinstance(metrics, dict):
        raise BadInput(f"{who}: {METRICS_FILE} holds a {type(metrics).__name__}; an object of numbers is needed.")
    if wrong:
        raise BadInput(f"{who}: {wrong} in {METRICS_FILE} is no finite number. The training has probably diverged; lower the learning rate.")
    if not any(isinstance(value, int | float) and not isinstance(value, bool) for value in metrics.values()):
        raise BadInput(f'{who}: {METRICS_FILE} holds no number. Write at least one, such as {{"accuracy": 0.81}}.')
    return metrics


def check_model(output: Path, who: str, needs_safetensors: bool) -> None:
    """Refuse what can't be published: no model, a link, a file that runs code when it is loaded."""
    files = collect_files(output)
    if needs_safetensors and not any(name.endswith(".safetensors") for name in files):
        raise BadInput(f"{who} wrote no .safetensors file into SPACEPORT_OUTPUT, only {', '.join(sorted(files)[:5])}.")


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{path}.{name}".strip("."), inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(f"{path}[{place}]", inner)
    else:
        yield path, value
