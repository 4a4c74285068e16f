"""The model card: the numbers, and every input with its SHA, where people and the Hub look for them."""

from collections.abc import Mapping
from typing import Any

from infra.hub.cards import PROMOTION, front_matter_of, merge_card, text_of
from tasks.answers import BETTER, COST, MADE_FROM, WORSE, answers, in_lines, table
from tasks.candidates.provenance import ModelConfig, Provenance

TAG = "spaceport"


def candidate_card(written: str, metrics: Mapping[str, Any], provenance: Provenance, config: ModelConfig, library: str | None) -> str:
    """The card of a candidate. What the training script wrote into its own README comes below our part, its front matter under ours."""
    body = "\n".join(_body(metrics, provenance, config))
    own = text_of(written).replace(PROMOTION, "").strip()
    front_matter = {**front_matter_of(written), **_front_matter(metrics, provenance, config, library)}
    return merge_card(None, f"{body}\n\n{own}" if own else body, front_matter)


def promotion_part(report: Mapping[str, Any], by_hand: bool = False) -> str:
    """What a card says once its model is live: the answers of the run that promoted it, as far as they stay true.

    No row's text, whoever may read the rows today: a commit can't be unsaid, and a dataset can be closed. Row ids and slices say no more than the verdict in
    the repo's own `.spaceport/`. What is live is this card's own revision, and the command that takes it back is on the run's page.
    """
    told = answers(report)
    lines = ["Made live by a person's word; the gate wasn't asked.", ""] if by_hand else []
    return "\n".join(lines + in_lines({question: told[question] for question in (BETTER, WORSE, COST) if question in told})).strip()


def _front_matter(metrics: Mapping[str, Any], provenance: Provenance, config: ModelConfig, library: str | None) -> dict[str, Any]:
    values = {
        "license": config.license,
        "language": config.language,
        "library_name": library,
        "pipeline_tag": config.task,
        "tags": [TAG, *config.tags],
        "datasets": [provenance.dataset.repo_id],
        "base_model": provenance.base.repo_id if provenance.base else None,
        "model-index": _model_index(metrics, provenance, config),
    }
    return {name: value for name, value in values.items() if value}


def _model_index(metrics: Mapping[str, Any], provenance: Provenance, config: ModelConfig) -> list[dict[str, Any]]:
    numbers = numbers_of(metrics)
    if not numbers:
        return []
    dataset = {
        "name": provenance.dataset.repo_id,
        "type": provenance.dataset.repo_id,
        "split": provenance.split,
        "revision": provenance.dataset.sha,
    }
    listed = [{"type": name, "value": value, "name": name.replace("_", " ")} for name, value in numbers.items()]
    return [{"name": _title(config), "results": [{"task": {"type": config.task or "other"}, "dataset": dataset, "metrics": listed}]}]


def _body(metrics: Mapping[str, Any], provenance: Provenance, config: ModelConfig) -> list[str]:
    lines = [f"# {_title(config)}", ""]
    numbers = numbers_of(metrics)
    if numbers:
        lines += [f"| metric | on {provenance.split} |", "|---|---|", *(f"| {name.replace('_', ' ')} | {value:.6g} |" for name, value in numbers.items()), ""]
    lines += [*table((MADE_FROM, ""), [*provenance.made_from.items()]), "", PROMOTION, ""]
    return [*lines, "The resolved config, the metrics and the prediction for each row are in `.spaceport/`."]


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are plain numbers, by name in order."""
    return {name: value for name, value in sorted(metrics.items()) if isinstance(value, int | float) and not isinstance(value, bool)}


def _title(config: ModelConfig) -> str:
    return config.title or config.repo_id.split("/")[-1]
