"""What a training tells while it runs: its loss curve, its progress lines, and that it was asked to stop."""

import math
import os
import time
from typing import Any

import torch
from transformers import TrainerCallback

from infra.compute import contract

_SECONDS_BETWEEN_LINES = 1.0


class History(TrainerCallback):
    """The loss curve, thinned to one mean per `every` steps.

    The Trainer logs every step and this callback replaces a full window by its mean. The open window stays in the
    checkpoint as single steps, so a resumed run draws the same curve as an uninterrupted one.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the window when it is full."""
        if state.log_history and "loss" in state.log_history[-1] and state.global_step % self.every == 0:
            self._close(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The last window may be a short one."""
        if state.global_step >= state.max_steps:
            self._close(state)

    @staticmethod
    def points(state: Any) -> list[dict[str, float]]:
        """The curve: step, loss, learning_rate, epoch; and validation_loss, validation_accuracy where they were measured."""
        points = []
        for entry in state.log_history:
            if "loss" in entry:
                names = {"epoch": "epoch", "loss": "loss", "learning_rate": "learning_rate"}
            else:
                names = {"epoch": "epoch", "eval_loss": "validation_loss", "eval_accuracy": "validation_accuracy"}
            if "loss" in entry or "eval_loss" in entry:
                points.append({"step": entry["step"], **{ours: _number(entry[theirs]) for theirs, ours in names.items() if theirs in entry}})
        return points

    def _close(self, state: Any) -> None:
        # Windows have borders at multiples of `every`, so what belongs together can be told from the step alone.
        first = (state.global_step - 1) // self.every * self.every
        places = [place for place, entry in enumerate(state.log_history) if "loss" in entry and entry["step"] > first]
        if not places:
            return
        window = [state.log_history[place] for place in places]
        last = {name: window[-1][name] for name in ("step", "epoch", "learning_rate") if name in window[-1]}
        mean = {"loss": sum(entry["loss"] for entry in window) / len(window), **last}
        kept = [mean if place == places[0] else entry for place, entry in enumerate(state.log_history) if place not in places[1:]]
        state.log_history = kept


class Progress(TrainerCallback):
    """One progress line per second at most: step, total, loss, learning rate, epoch, seconds to go."""

    def __init__(self) -> None:
        self.started = self.printed = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock at the step that this attempt starts from."""
        self.started, self.first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            print(contract.progress_line(step=state.global_step, total=state.max_steps), flush=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Say where the training is."""
        now = time.monotonic()
        last = state.global_step >= state.max_steps
        if not logs or "loss" not in logs or not state.is_world_process_zero or (now - self.printed < _SECONDS_BETWEEN_LINES and not last):
            return
        self.printed = now
        per_step = (now - self.started) / max(1, state.global_step - self.first_step)
        facts = {name: _number(logs[name]) for name in ("loss", "learning_rate", "epoch") if name in logs}
        eta_seconds = round(per_step * (state.max_steps - state.global_step), 1)
        print(contract.progress_line(step=state.global_step, total=state.max_steps, **facts, eta_seconds=eta_seconds), flush=True)


class StopOnSignal(TrainerCallback):
    """SIGTERM: seal a checkpoint after the step that is running, then stop."""

    def __init__(self) -> None:
        self.asked = False
        self.training = False

    def on_signal(self, *_: Any) -> None:
        """Remember the wish; outside of the training loop there is nothing to seal, so leave at once."""
        self.asked = True
        if not self.training:
            os._exit(contract.PREEMPTED)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here on a step is running."""
        self.training = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save and stop when asked: in the same step on every rank, though the signal reaches them at different times."""
        if args.world_size > 1:
            anybody = torch.tensor(int(self.asked), device=args.device)
            torch.distributed.all_reduce(anybody, torch.distributed.ReduceOp.MAX)
            self.asked = bool(anybody.item())
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The loop is over; its last checkpoint is sealed."""
        self.training = False


def _number(value: Any) -> float:
    """Short enough to read; a number that is none becomes the error it is when metrics.json is written."""
    number = float(value)
    return round(number, 8) if math.isfinite(number) else number
