"""A training program of one's own, built on what the recipes are built on: masked language modelling with random masks, and perhaps frozen weights.

It also trains without one of the parts that make a resume exact (`without`), which shows that the kill tests can fail.
"""

import json
import os
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainingArguments

from infra.compute import contract
from tasks.recipes.classifier import set_up
from tasks.recipes.encoded import Encoded
from tasks.recipes.exact import ExactTrainer, Reseed
from tasks.recipes.rows import read_rows, split_files
from tasks.recipes.sealing import train_sealed


class Torn(TrainerCallback):
    """What a plain Trainer does: the checkpoint counts as soon as its folder is there, and older ones go before the new one is safe."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step % args.save_steps == 0:
            for old in Path(args.output_dir).glob("checkpoint-*"):
                shutil.rmtree(old)


def main() -> int:
    """Train as the contract says."""
    told = json.loads(Path(os.environ[contract.CONFIG]).read_text())
    args, seed = told["args"], told["seed"]
    set_up(told["threads"])
    transformers.set_seed(seed)
    base = os.environ[contract.BASE]
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForMaskedLM.from_pretrained(base)
    if args.get("freeze"):
        model.bert.embeddings.requires_grad_(False)
        model.bert.encoder.layer[0].requires_grad_(False)
    rows = Encoded(tokenizer, read_rows(split_files(os.environ[contract.DATA], "train"), "text", "label", ["neg", "pos"]), ["neg", "pos"], 64)
    without = args.get("without")
    trainer = (Trainer if without == "draws" else ExactTrainer)(
        model=model,
        args=TrainingArguments(
            output_dir=os.environ[contract.CHECKPOINTS],
            per_device_train_batch_size=8,
            num_train_epochs=2,
            learning_rate=3e-3,
            seed=seed,
            save_steps=args["checkpoint_every_steps"],
            dataloader_num_workers=args.get("loader_workers", 0),
            dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
            disable_tqdm=True,
            report_to=[],
            logging_steps=1000,
        ),
        train_dataset=[{"input_ids": rows[row]["input_ids"]} for row in range(len(rows))],
        data_collator=DataCollatorForLanguageModeling(tokenizer),
        callbacks=[Reseed()],
    )
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    if without == "seal":
        trainer.add_callback(Torn())
        found = sorted(Path(trainer.args.output_dir).glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        trainer.train(resume_from_checkpoint=str(found[-1]) if found else None)
    else:
        train_sealed(trainer)
    output = Path(os.environ[contract.OUTPUT])
    trainer.model.save_pretrained(output)
    (output / contract.METRICS_FILE).write_text(json.dumps({"parameters": sum(value.numel() for value in model.parameters())}))
    return 0
