"""Under which licence a base model stands, as far as its folder says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

# What a LICENSE file begins with -> the Hub's identifier (https://huggingface.co/docs/hub/repositories-licenses).
BEGINNINGS = (
    ("creativeml open rail++", "openrail++"),
    ("creativeml open rail-m", "creativeml-openrail-m"),
    ("apache license", "apache-2.0"),
    ("mit license", "mit"),
)
BEGINNING_CHARACTERS = 400

# The Hub refuses a card with any other; this is its own list, from its answer in huggingface/huggingface_hub issue 4218.
IDENTIFIERS = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m openrail++
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0
epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research
lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl
lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4
grok2-community gemma unknown other
"""


@dataclass(frozen=True)
class Licence:
    identifier: str
    """The Hub's; `other` where it has none."""

    name: str | None = None
    link: str | None = None

    @property
    def title(self) -> str:
        return self.name or self.identifier

    def front_matter(self) -> dict[str, Any]:
        """A base model's card may be older than the Hub's list, or never have been there: its own word becomes the name then."""
        identifier = self.identifier.lower()
        known = identifier if identifier in IDENTIFIERS.split() else "other"
        name = self.name or (re.sub(r"[^a-z0-9.+-]+", "-", identifier) if known != identifier else None)
        named = {"license": known, "license_name": name, "license_link": self.link}
        return {key: value for key, value in named.items() if value}


def base_licence(model_dir: Path) -> Licence | None:
    """From the front matter of the folder's README.md, else from the words of its LICENSE; None where neither says."""
    return licence_of_card(model_dir / "README.md") or licence_of_file(model_dir)


def licence_of_card(card: Path) -> Licence | None:
    front = read_front_matter(card)
    identifier = text_of(front.get("license"))
    if identifier is None:
        return None
    link = text_of(front.get("license_link"))
    # A link into the base model's own folder leads nowhere from another's card.
    on_web = link is not None and link.startswith("https://")
    return Licence(identifier, name=text_of(front.get("license_name")), link=link if on_web else None)


def text_of(value: Any) -> str | None:
    """A text, or the first of a list of them; what else people write there says nothing."""
    first: Any = next(iter(cast("list[Any]", value)), None) if isinstance(value, list) else value
    return first if isinstance(first, str) else None


def read_front_matter(card: Path) -> Mapping[str, Any]:
    """Empty where there is no card, no front matter, or none that YAML can read: a base model's card is not our job."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    found = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if not found:
        return {}
    try:
        content: object = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return {}
    return cast("dict[str, Any]", content) if isinstance(content, dict) else {}


def licence_of_file(model_dir: Path) -> Licence | None:
    for path in sorted(model_dir.glob("LICENSE*")):
        beginning = path.read_text(encoding="utf-8", errors="replace")[:BEGINNING_CHARACTERS].lower()
        for words, identifier in BEGINNINGS:
            if words in beginning:
                return Licence(identifier)
    return None
