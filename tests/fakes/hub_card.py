"""How the Hub's double judges a model card: a part of https://huggingface.co/docs/hub/model-cards#model-card-metadata."""

import re
from typing import Any

import yaml

LICENCES = {"apache-2.0", "mit", "creativeml-openrail-m", "openrail++", "other", "unknown", "cc-by-4.0"}  # a few of the Hub's
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def card_problems(card: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(errors, warnings)"""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    if front is None:
        return [], [{"message": "empty or missing yaml metadata in repo card"}]
    try:
        metadata: Any = yaml.safe_load(front[1])
    except yaml.YAMLError as error:
        return [{"message": f"invalid yaml: {error}"}], []
    if not isinstance(metadata, dict):
        return [{"message": '"metadata" must be of type object'}], []
    bases = metadata.get("base_model", [])
    problems = {
        '"license" must be one of the known licenses': metadata.get("license", "mit") not in LICENCES,
        '"base_model" with an id on the Hub': not all(
            HUB_ID.fullmatch(str(base)) for base in (bases if isinstance(bases, list) else [bases])
        ),
        '"tags" must be a list of strings': not all(isinstance(tag, str) for tag in metadata.get("tags", [])),
        '"datasets" must be a list': not isinstance(metadata.get("datasets", []), list),
    }
    return [{"message": message} for message, is_one in problems.items() if is_one], []
