"""What a publish says about itself: the step key, what went into it, what came out."""

import hashlib
import json
from collections.abc import Mapping
from typing import Self

from pydantic import Field, JsonValue, ValidationError

from infra.errors import BadInput
from infra.revisions import Frozen

STEP_FILE = ".spaceport/step.json"


def canonical_json(value: JsonValue) -> bytes:
    """The one byte form of a JSON value (keys sorted, no spaces, UTF-8), as RFC 8785 has it for the values that we use."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: JsonValue) -> str:
    """SHA-256 of a JSON value's canonical form, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def step_key(step: str, version: int, inputs: Mapping[str, JsonValue]) -> str:
    """The content identity of a step's work: the same inputs give the same key on any machine."""
    return digest({"step": step, "version": version, "inputs": dict(inputs)})


class StepRecord(Frozen):
    """The content of `.spaceport/step.json`: written with every publish, byte-stable, no time and no run id in it."""

    key: str
    step: str
    version: int
    inputs: dict[str, JsonValue]
    outputs: dict[str, JsonValue] = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)  # path -> SHA-256 of what this step wrote there

    @classmethod
    def of(cls, step: str, version: int, inputs: Mapping[str, JsonValue], outputs: Mapping[str, JsonValue] | None = None) -> Self:
        """The record of a step's work, its key worked out from the rest."""
        return cls(key=step_key(step, version, inputs), step=step, version=version, inputs=dict(inputs), outputs=dict(outputs or {}))

    @classmethod
    def parse(cls, value: JsonValue, where: object) -> Self:
        """Read a record. Raises BadInput when it was edited into something else."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise BadInput(f"{STEP_FILE} of {where} isn't a step record ({error.error_count()} errors). Put it back as it was published.") from error

    def dump(self) -> bytes:
        """The bytes of the file: sorted, indented, ends in a newline."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def changed_inputs(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue], prefix: str = "") -> list[str]:
    """The dotted names of the inputs that differ, for "which input changed"."""
    names: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if name in before and name in now and canonical_json(old) == canonical_json(new):  # not ==: 1, 1.0 and true have keys of their own
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            names += changed_inputs(old, new, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names
