"""Fine-tuning a text classifier with the Trainer, exact on resume."""

import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainingArguments, set_seed

from infra.compute import contract
from infra.errors import BadInput
from tasks.recipes.arguments import rows_at_once
from tasks.recipes.classifier import PREDICT_BATCH, set_up
from tasks.recipes.encoded import Encoded
from tasks.recipes.exact import ExactTrainer, Reseed, seed_of
from tasks.recipes.following import History, Progress, StopOnSignal
from tasks.recipes.sealing import Seal, last_sealed
from tasks.recipes.tracking import Tracked

if TYPE_CHECKING:
    from tasks.recipes.rows import Rows
    from tasks.recipes.text_classification import Job


class Trained(NamedTuple):
    """A fitted model, and what is worth telling about the fit."""

    model: Any
    tokenizer: Any
    facts: dict[str, float | int]
    history: list[dict[str, float]]

    def save(self, output: Path) -> None:
        """Weights as safetensors, tokenizer and config; nothing that differs between two equal runs."""
        self.model.config._name_or_path = ""
        self.model.save_pretrained(output)
        self.tokenizer.save_pretrained(output)


def fit(job: "Job", rows: Mapping[str, "Rows"], names: Sequence[str], base: str, checkpoints: Path) -> Trained | None:
    """Fine-tune the base model, from the last sealed checkpoint if there is one. None: told to stop, and sealed."""
    stop = StopOnSignal()
    signal.signal(signal.SIGTERM, stop.on_signal)
    set_up(job.threads)
    _check_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    tokenizer, model = _from_base(base, names, job)
    encoded = {name: Encoded(tokenizer, split, names, tokenizer.model_max_length) for name, split in rows.items() if split.labels and name != "test"}
    arguments = _arguments(job, checkpoints, has_validation=bool(encoded.get("validation")))
    trainer = ExactTrainer(
        model=model,
        args=arguments,
        train_dataset=encoded["train"],
        eval_dataset=encoded.get("validation") or None,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if torch.cuda.is_available() else None),
        compute_metrics=_accuracy,
        compute_loss_func=partial(_mean_loss, label_smoothing=job.args.label_smoothing),
        callbacks=[Reseed(), History(job.args.history_every_steps), Seal(), Progress(), *_tracker(), stop],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if job.args.length_buckets:
        trainer.lengths = encoded["train"].lengths
    trainer.train(resume_from_checkpoint=last_sealed(arguments))
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        return None
    facts = {"steps": trainer.state.global_step, "epochs": round(trainer.state.epoch, 4)}
    return Trained(trainer.model, tokenizer, facts, History.points(trainer.state))


def _check_gpus(processes: int) -> None:
    """Two ranks on one GPU end in NCCL's own words, a minute later."""
    if torch.cuda.is_available() and processes > (gpus := torch.cuda.device_count()):
        raise BadInput(f"{processes} processes need a GPU each, and this machine has {gpus}. Set train.processes to {gpus}, or take a machine with more.")


def _tracker() -> list[Tracked]:
    told = os.environ.get(contract.REPORT_TO, "none")
    return [Tracked(told)] if told != "none" else []


def _from_base(base: str, names: Sequence[str], job: "Job") -> tuple[Any, Any]:
    set_seed(seed_of(job.seed, "init"))  # the new classification head
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForSequenceClassification.from_pretrained(
            base,
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            problem_type="single_label_classification",
            use_safetensors=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"the base model can't be loaded: {' '.join(str(error).split())[:300]}") from None
    longest = getattr(model.config, "max_position_embeddings", job.args.max_length)
    # Whoever loads the model later (predict, the Space) cuts where training cut.
    tokenizer.model_max_length = min(job.args.max_length, longest)
    return tokenizer, model


def _mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None, *, label_smoothing: float) -> torch.Tensor:
    """The mean over the rows of an optimizer step, however many parts and processes it is worked off in.

    transformers 5.24: classifiers take the loss arguments but ignore them, so that the Trainer's own loss comes out
    multiplied by the number of accumulation steps, and of processes (2026-11).
    """
    total = torch.nn.functional.cross_entropy(outputs["logits"].float(), labels, reduction="sum", label_smoothing=label_smoothing)
    return total / (labels.numel() if num_items_in_batch is None else num_items_in_batch)


def _accuracy(evaluation: Any) -> dict[str, float]:
    hits = evaluation.predictions.argmax(axis=-1) == evaluation.label_ids
    return {"accuracy": float(hits.mean())}


def _arguments(job: "Job", checkpoints: Path, has_validation: bool) -> Any:
    args = job.args
    steps = args.max_steps or -1
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=rows_at_once(args, int(os.environ.get("WORLD_SIZE", "1"))),
        per_device_eval_batch_size=PREDICT_BATCH,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        num_train_epochs=args.epochs,
        max_steps=steps,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_ratio,
        lr_scheduler_type="constant_with_warmup" if args.schedule == "constant" else args.schedule,
        weight_decay=args.weight_decay,
        max_grad_norm=args.max_gradient_norm,
        bf16=job.dtype == "bfloat16",
        use_cpu=not torch.cuda.is_available(),
        seed=job.seed,
        ddp_find_unused_parameters=False,
        eval_strategy="epoch" if args.evaluate and has_validation else "no",
        save_strategy="steps",
        save_steps=args.checkpoint_every_steps,
        save_total_limit=None,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],  # the tracker comes as a callback that can't end the training
        project=os.environ.get("TRACKIO_PROJECT", "spaceport"),
        run_name=Path(os.environ.get(contract.RUNS, ".")).parent.name or None,
        trackio_static_space_id=False,  # publishes nothing by itself
        dataloader_num_workers=args.loader_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        accelerator_config={"dispatch_batches": False},
    )
