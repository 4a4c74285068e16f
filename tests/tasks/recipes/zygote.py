"""Starts recipe processes without their seconds of imports: reads one JSON job a line, forks, prints the process id and then its exit code."""

import gc
import json
import os
import runpy
import socket
import sys
from pathlib import Path

import masking  # the program beside this one
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

import tasks.recipes.fitting  # noqa: F401 - imported before the fork, that is the point
from tasks.recipes.classifier import load
from tasks.recipes.ranks import die_with_parent
from tasks.recipes.text_classification import main


def make_base(folder: Path, words: list[str]) -> None:
    """A BERT of two thin layers with dropout, and a word-level tokenizer."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate([*marks, *words])}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), marks, strict=True))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    transformers.set_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 64}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(marks) + len(words), initializer_range=0.2, **shape)).save_pretrained(folder)


def become_ranks(number: int) -> None:
    """What torchrun does, without its seconds: so many processes that find each other through their environment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    os.environ |= {"WORLD_SIZE": str(number), "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for rank in range(1, number):
        if os.fork() == 0:
            die_with_parent()
            os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            return


def run(job: dict) -> None:
    """The child's life."""
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(job["environment"])
    if job.get("ranks", 1) > 1:
        become_ranks(job["ranks"])
    try:
        if "script" in job:
            runpy.run_path(job["script"], run_name="__main__")
            code = 0
        else:
            code = masking.main() if job.get("program") == "masking" else main(job["arguments"])
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


make_base(Path(sys.argv[1]), sys.argv[2:])
load(Path(sys.argv[1]), threads=1)  # what a first load builds once, it builds before the fork
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        run(json.loads(line))
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
