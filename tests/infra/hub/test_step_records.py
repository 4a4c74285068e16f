"""Step keys: the same on any machine and in any release, and different for any different input."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import BadInput
from infra.hub.step_records import StepRecord, canonical_json, changed_inputs, step_key

# Keys of released versions. A key that changes makes every team train again and loses what was published: never edit one, add new cases.
GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_inputs = st.dictionaries(st.text(max_size=4), _values, max_size=4)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['step']}-{case['about']}")
def test_a_released_key_never_changes(case):
    """Fixed inputs give the literal key that an earlier release gave."""
    assert step_key(case["step"], case["version"], case["inputs"]) == case["key"]


@given(_inputs)
def test_a_key_does_not_depend_on_the_order_of_names(inputs):
    """The same inputs written in another order are the same work."""
    assert step_key("s", 1, dict(reversed(inputs.items()))) == step_key("s", 1, inputs)


@given(_inputs, _inputs)
def test_different_inputs_have_different_keys_and_the_difference_is_named(before, now):
    """Keys are equal exactly when the canonical inputs are, and what changed is named exactly then."""
    same = canonical_json(before) == canonical_json(now)
    assert (step_key("s", 1, before) == step_key("s", 1, now)) == (changed_inputs(before, now) == []) == same


def test_what_changed_is_named_by_its_path():
    """An edited value deep in the config has a dotted name; added and removed ones too."""
    assert changed_inputs({"a": 1, "b": None}, {"a": 1.0}) == ["a", "b"]
    assert changed_inputs({"config": {"lr": 1, "x": 1}, "gone": 1}, {"config": {"lr": 2, "x": 1}, "new": 1}) == ["config.lr", "gone", "new"]


def test_step_and_version_are_part_of_the_key():
    """Another step, or a raised version of ours, is other work."""
    assert len({step_key("a", 1, {}), step_key("b", 1, {}), step_key("a", 2, {})}) == 3


@given(_inputs, _inputs)
def test_a_record_comes_back_from_its_bytes(inputs, outputs):
    """What is written into a repo is read as the same record, and written again as the same bytes."""
    record = StepRecord.of("s", 1, inputs, outputs)
    again = StepRecord.parse(json.loads(record.dump()), "here")
    assert again.dump() == record.dump() and again.key == record.key


@pytest.mark.parametrize("edited", [None, [], {}, {"key": 1}, {"key": "k", "step": "s", "version": 1, "inputs": {}, "extra": 1}])
def test_a_record_that_was_edited_is_refused(edited):
    """Anything that isn't a record is named as such, with its place."""
    with pytest.raises(BadInput, match="ns/name@sha isn't a step record"):
        StepRecord.parse(edited, "ns/name@sha")


def test_numbers_that_json_lacks_are_refused():
    """NaN has no canonical form, so it can't be part of a key."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        step_key("s", 1, {"x": float("nan")})
