"""What a bag of words makes of the same rows: `python -m tasks.recipes.tfidf_baseline`, a few seconds of one core.

The number that a language model has to be worth its price against. Under the script contract like any other program.
"""

import json
import os
import sys
from pathlib import Path

from infra.compute import contract
from infra.errors import BadInput
from tasks.recipes.rows import read_rows, split_files
from tasks.recipes.text_classification import read_job

MAX_ROWS = 100_000  # enough for this model's best; more rows only take time
FEATURES, CONTEXT_WORDS, STRENGTH = 200_000, 2, 10.0


def baseline_accuracy(data: Path, config: Path) -> float:
    """Accuracy on the test split of TF-IDF (1-2 words) with logistic regression (C=10), fitted on the train split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    job = read_job(config)
    train, test = (read_rows(split_files(data, split), job.text_column, job.label_column, job.labels) for split in ("train", "test"))
    if not train.labels or not test.labels:
        raise BadInput("the baseline needs labels in the train and the test split.")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, CONTEXT_WORDS), max_features=FEATURES, sublinear_tf=True), LogisticRegression(C=STRENGTH, max_iter=1000, random_state=0)
    )
    model.fit(train.texts[:MAX_ROWS], train.labels[:MAX_ROWS])
    return float(model.score(test.texts, test.labels))


if __name__ == "__main__":
    os.nice(10)  # the training beside it matters more
    found = baseline_accuracy(Path(os.environ[contract.DATA]), Path(os.environ[contract.CONFIG]))
    Path(os.environ[contract.OUTPUT], "baseline.json").write_text(json.dumps({"tfidf_accuracy": found}) + "\n")
    sys.exit(contract.DONE)
