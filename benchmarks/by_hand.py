"""The demo by hand, with the defaults of Hugging Face's own script: dataset pushed, `run_classification.py`, model uploaded, Space uploaded and waited for.

    python -m benchmarks.by_hand TRAIN.csv TEST.csv NAMESPACE      with HF_ENDPOINT and HF_TOKEN in the environment

What `whole_demo` holds the pipeline against. The training follows transformers' examples/pytorch/text-classification/run_classification.py (commit
005c23ae8f6dca810fa2a0e5cecabe0cfb24aaf3, https://github.com/huggingface/transformers/blob/main/examples/pytorch/text-classification/run_classification.py)
with its defaults: texts padded to max_seq_length 128 (`pad_to_max_length=True`), `default_data_collator`, and the Trainer's own (batch 8, learning rate
5e-5, float32, a checkpoint each 500 steps); epochs 1, as ours. It isn't in the wheel, and fetches its metric from the Hub, so accuracy is worked out
here. Labels are numbers: with datasets 5 the script's own renumbering leaves text as text (2026-11).
Prints {"accuracy": ...}.
"""

import json
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

BASE = "sentence-transformers/all-MiniLM-L6-v2"
MAX_SEQ_LENGTH = 128
APP = """
import gradio as gr
from transformers import pipeline

classify = pipeline("text-classification", model="{repo_id}", top_k=None)
gr.Interface(lambda text: {{answer["label"]: answer["score"] for answer in classify([text])[0]}}, gr.Textbox(), gr.Label()).launch()
"""
README = "---\ntitle: by hand\nsdk: gradio\nsdk_version: 6.31.0\napp_file: app.py\n---\n"


def main(train_file: str, test_file: str, namespace: str) -> None:
    """Rows to a Space that answers."""
    from datasets import load_dataset

    rows = load_dataset("csv", data_files={"train": train_file, "test": test_file})
    rows.push_to_hub(f"{namespace}/by-hand-rows")
    with tempfile.TemporaryDirectory() as folder:
        accuracy = run_classification(rows, Path(folder))
        publish(Path(folder), f"{namespace}/by-hand")
    serve(f"{namespace}/by-hand")
    print(json.dumps({"accuracy": accuracy}))


def run_classification(rows: Any, folder: Path) -> float:
    """The script's main(), for one text column and string labels: train, save, predict the test rows."""
    import numpy as np
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, default_data_collator, set_seed

    training_args = TrainingArguments(output_dir=str(folder), num_train_epochs=1)
    set_seed(training_args.seed)
    label_list = sorted(str(label) for label in rows["train"].unique("label"))
    config = AutoConfig.from_pretrained(BASE, num_labels=len(label_list), finetuning_task="text-classification")
    config.problem_type = "single_label_classification"
    tokenizer = AutoTokenizer.from_pretrained(BASE, use_fast=True)
    model = AutoModelForSequenceClassification.from_pretrained(BASE, config=config)
    label_to_id = {label: number for number, label in enumerate(label_list)}
    model.config.label2id, model.config.id2label = label_to_id, {number: label for label, number in label_to_id.items()}

    def preprocess_function(examples: dict[str, list[Any]]) -> Any:
        result = tokenizer(examples["text"], padding="max_length", max_length=min(MAX_SEQ_LENGTH, tokenizer.model_max_length), truncation=True)
        result["label"] = [label_to_id[str(label)] for label in examples["label"]]
        return result

    rows = rows.map(preprocess_function, batched=True, desc="Running tokenizer on dataset")
    trainer = Trainer(model=model, args=training_args, train_dataset=rows["train"], processing_class=tokenizer, data_collator=default_data_collator)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    predictions = np.argmax(trainer.predict(rows["test"].remove_columns("label")).predictions, axis=1)
    return float((predictions == np.asarray(rows["test"]["label"])).mean())


def publish(folder: Path, repo_id: str) -> None:
    """The model, without its checkpoints."""
    from huggingface_hub import HfApi

    HfApi().create_repo(repo_id)
    HfApi().upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=["checkpoint-*"])


def serve(repo_id: str) -> None:
    """A Space of eight lines, until it answers."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repo_id, repo_type="space", space_sdk="gradio")
    with tempfile.TemporaryDirectory() as folder:
        files = {"app.py": APP.format(repo_id=repo_id), "README.md": README, "requirements.txt": "torch\ntransformers\n"}
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        api.upload_folder(repo_id=repo_id, repo_type="space", folder_path=folder)
    while (runtime := api.get_space_runtime(repo_id)).stage not in {"RUNNING", "BUILD_ERROR", "RUNTIME_ERROR", "CONFIG_ERROR"}:
        time.sleep(0.3)
    assert runtime.stage == "RUNNING", runtime
    urllib.request.urlopen(str(api.space_info(repo_id).host), timeout=60).close()


if __name__ == "__main__":
    main(*sys.argv[1:])
