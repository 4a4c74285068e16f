"""What a run would do, asked of the ledger: nothing twice, and never too little."""

from typing import Any

import pytest

from flows.planning import Plan, plan_run


def actions(plan: Plan) -> dict[str, str]:
    return {step.name: step.action for step in plan.steps}


def test_before_the_first_run_everything_is_to_be_done(project: Any) -> None:
    """On an empty Hub the plan is to run the data step, and all the rest depends on it."""
    plan = plan_run(project.config(), project.hub)
    assert actions(plan) == {"data_register": "run", "train_model": "depends", "gate": "depends", "promote_model": "depends", "refresh_space": "skip"}
    assert plan.changes and plan.commits == 4


def test_the_same_config_again_is_nothing_to_do(done: Any) -> None:
    """After a run, the same config plans no step and no commit."""
    plan = plan_run(done.config(), done.hub)
    assert actions(plan) == {"data_register": "reuse", "train_model": "reuse", "gate": "reuse", "promote_model": "reuse", "refresh_space": "skip"}
    assert not plan.changes and plan.commits == 0


def test_one_changed_argument_retrains_on_the_same_dataset(done: Any) -> None:
    """A hyperparameter is an input of training alone, and the plan names it."""
    plan = plan_run(done.config(train={"args": {"smoothing": 2}}), done.hub)
    steps = {step.name: step for step in plan.steps}
    assert (steps["data_register"].action, steps["train_model"].action) == ("reuse", "run")
    assert steps["train_model"].changed == ("args.smoothing",)


@pytest.mark.parametrize("name", ["train.py", "predict.py", "words.py", "cleaning.py"])
def test_an_edit_to_code_that_the_result_depends_on_retrains(done: Any, name: str) -> None:
    """The script, a module that it imports and a transitive one are all part of the key, and the plan names the file."""
    path = done.folder / "code" / name
    path.write_text(path.read_text() + "\n# changed\n")
    steps = {step.name: step for step in plan_run(done.config(), done.hub).steps}
    assert steps["train_model"].action == "run"
    assert steps["train_model"].changed == (f"code.{name}",)


def test_an_edit_to_an_unrelated_file_reuses_everything(done: Any) -> None:
    """Notes beside the script change no key."""
    (done.folder / "code" / "README.md").write_text("other notes\n")
    (done.folder / "code" / "unused.py").write_text("x = 1\n")
    assert not plan_run(done.config(), done.hub).changes


def test_a_changed_locked_package_retrains(done: Any) -> None:
    """The version that the lock beside the script names is part of the key, whatever is installed here."""
    code = done.folder / "code"
    (code / "uv.lock").write_text('version = 1\n[[package]]\nname = "pyarrow"\nversion = "1.2.3"\nsource = { registry = "https://pypi.org/simple" }\n')
    steps = {step.name: step for step in plan_run(done.config(), done.hub).steps}
    assert steps["train_model"].changed == ("packages.pyarrow",)


def test_new_rows_are_a_new_dataset(done: Any) -> None:
    """One more row in the source runs the data step, and the plan names the file."""
    rows = done.folder / "rows.csv"
    rows.write_text(rows.read_text() + "a great new film,good\n")
    step = plan_run(done.config(), done.hub).steps[0]
    assert (step.name, step.action, step.changed) == ("data_register", "run", ("source.rows.csv",))


def test_where_it_runs_and_who_may_see_it_change_no_key(done: Any) -> None:
    """Name, visibility and the limits of a run are not what it makes."""
    config = done.config(name="another name", train={"grace_seconds": 5, "timeout_minutes": 9}, data={"visibility": "public"}, model={"keep_candidates": 3})
    assert not plan_run(config, done.hub).changes
