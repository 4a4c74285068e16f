"""Hands a training's numbers to Trackio, W&B or TensorBoard. The tracker can neither end the training nor change a bit of it."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from infra.compute import contract
from tasks.recipes.exact import undisturbed


class Tracked(TrainerCallback):
    """The tracker's own callback, where nobody relies on it: its first error is said once, and the training goes on without it."""

    def __init__(self, tracker: str) -> None:
        self.tracker = tracker
        self.inner: Any = None
        self.given_up = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Open the tracker's run, and say where it is."""
        if state.is_world_process_zero:
            self._try(lambda: self._open(args, state, control, more))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        """Pass the numbers on."""
        if self.inner:
            self._try(lambda: self.inner.on_log(args, state, control, logs=dict(logs or {}), **more))

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Close the tracker's run, also where the training was only told to stop: the next attempt goes on in it."""
        if self.inner:
            self._try(lambda: self._close(args, state, control, more))

    def _open(self, args: Any, state: Any, control: Any, more: dict[str, Any]) -> None:
        self.inner = INTEGRATION_TO_CALLBACK[self.tracker](*([event_writer()] if self.tracker == "tensorboard" else []))
        self.inner.on_train_begin(args, state, control, **more)
        print(contract.progress_line(tracker=self._where(args)), flush=True)

    def _close(self, args: Any, state: Any, control: Any, more: dict[str, Any]) -> None:
        self.inner.on_train_end(args, state, control, **more)
        if self.tracker == "wandb":  # its callback leaves this to the program's end, which a lease or a killed machine may not let it reach
            self.inner._wandb.finish()

    def _try(self, call: Any) -> None:
        if self.given_up:
            return
        try:
            with undisturbed():
                call()
        except Exception as error:  # whatever a tracker raises: it is no part of the training
            self.given_up = True
            print(f"{self.tracker} is left out from here on: {' '.join(f'{type(error).__name__}: {error}'.split())[:300]}", flush=True)

    def _where(self, args: Any) -> str:
        if self.tracker == "wandb":
            return str(self.inner._wandb.run.url or f"wandb sync {os.environ.get('WANDB_DIR', '.')}/wandb/offline-run-*")
        if self.tracker == "trackio":
            space = self.inner._space_id
            endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
            return f"{endpoint}/spaces/{space}" if space else f"TRACKIO_DIR={os.environ.get('TRACKIO_DIR', '')} trackio show --project {args.project}"
        return f"tensorboard --logdir {self.inner.logging_dir}"


def event_writer() -> Any:
    """A writer of TensorBoard's event files whose file is this attempt's own: by time and host alone, an attempt would overwrite one of the same second."""
    module = "torch.utils.tensorboard" if find_spec("tensorboard") else "tensorboardX"  # as transformers has it: either will do
    writer = import_module(module).SummaryWriter
    return writer(os.environ["TENSORBOARD_LOGGING_DIR"], filename_suffix=f".{uuid4().hex[:8]}")
