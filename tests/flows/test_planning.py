"""What a run would do, asked of the ledger: nothing twice, and never too little."""

from typing import Any

import pytest

from deployments.summary import print_plan
from flows.planning import Plan, plan_run
from tasks.promote_model import promote, roll_back
from tasks.report import Live


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


def test_a_candidate_that_the_gate_kept_out_is_nothing_to_do(project: Any) -> None:
    """Its verdict is known, so no run is planned; the answer is the run's own: kept, exit code 2."""
    project.run(project.config())
    script = project.folder / "code" / "train.py"
    script.write_text(script.read_text().replace('row["label"]', '"good"'))
    verdict = project.judge(project.config())
    plan = plan_run(project.config(), project.hub)
    assert verdict.decision == "keep" and plan.decision == "keep" and not plan.changes and plan.commits == 0
    assert actions(plan) == {"data_register": "reuse", "train_model": "reuse", "gate": "reuse", "promote_model": "skip", "refresh_space": "skip"}
    report = plan.report(Live())
    assert (report.outcome, report.exit_code) == ("kept", 2)


def test_a_candidate_that_a_rollback_took_back_is_nothing_to_do(project: Any) -> None:
    """A rolled-back config isn't promoted again by a run, and so none is planned; another gate asks for none either."""
    first = project.run(project.config())
    script = project.folder / "code" / "train.py"
    script.write_text(script.read_text() + "\n# another one, as good\n")
    second = project.run(project.config(gate={"margin": 0.5}))
    roll_back(first, second, project.hub)
    plan = plan_run(project.config(gate={"margin": 0.4}), project.hub)
    assert plan.decision == "keep" and not plan.changes and "rollback" in plan.steps[2].why


def test_a_verdict_whose_promotion_is_missing_plans_the_promotion(project: Any) -> None:
    """The run died between gate and promote: the gate is reused, and main is to be moved. Afterwards nothing is."""
    verdict = project.judge(project.config())
    plan = plan_run(project.config(), project.hub)
    assert (actions(plan)["gate"], actions(plan)["promote_model"], plan.changes) == ("reuse", "depends", True)
    promote(verdict.candidate, verdict.judged_main_sha, verdict.key, project.hub)
    assert not plan_run(project.config(), project.hub).changes


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
    config = done.config(name="another name", train={"grace_seconds": 5, "max_hours": 9}, data={"visibility": "public"}, model={"keep_candidates": 3})
    assert not plan_run(config, done.hub).changes


def test_a_plan_says_minutes_and_price_from_the_live_models_receipt(done: Any) -> None:
    """The same rows take as long as they took; nothing to train is nothing to wait for; before the first training nothing is claimed."""
    plan = plan_run(done.config(train={"args": {"smoothing": 2}}), done.hub)
    assert plan.training and (plan.training.minutes, plan.training.usd) == (2.0, 0.0)
    assert "2.0 min on " in plan.training.basis and "cores" in plan.training.basis
    assert plan_run(done.config(), done.hub).training is None


def test_the_price_of_a_rented_machine_is_the_pools(done: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes are told, dollars aren't made up, and the plan can be read."""
    plan = plan_run(done.config(target="hf-jobs", train={"args": {"smoothing": 2}}), done.hub)
    assert plan.training and (plan.training.minutes, plan.training.usd) == (2.0, None)
    print_plan(plan)
    shown = capsys.readouterr()
    assert "about 2 min and a price that nobody names" in shown.out + shown.err


def test_twice_the_epochs_take_twice_as_long(project: Any) -> None:
    """Time is told in proportion to epochs, and to the rows of a dataset that is there."""
    before = plan_run(project.config(), project.hub)
    assert before.training and before.training.minutes is None and "receipt" in before.training.basis
    project.run(project.config(train={"args": {"epochs": 2}}))
    plan = plan_run(project.config(train={"args": {"epochs": 5}}), project.hub)
    assert plan.training and plan.training.minutes == 5.0


def test_a_plan_says_which_number_format_and_threads_the_run_will_hold_on_to(project: Any) -> None:
    """`auto` is resolved here and now; what is resolved is in the plan, and so in its JSON beside commits and changes."""
    plan = plan_run(project.config(train={"dtype": "auto", "threads": 3}), project.hub).model_dump(mode="json")
    assert plan["resolved"]["train.threads"] == 3 and plan["resolved"]["train.dtype"] in {"float32", "bfloat16"}
    assert (plan["changes"], plan["commits"]) == (True, 4)
