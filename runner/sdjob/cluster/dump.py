"""Manifests as YAML, in the order in which people expect fields. Pure."""

from collections.abc import Sequence
from typing import Any, cast

import yaml

from sdjob.cluster.names import Manifest
from sdjob.spec.load import PlainDumper


class ManifestDumper(PlainDumper):
    """Texts of several lines stand as they are; equal parts are written out, not referred to."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  PyYAML asks so
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        """Lists are indented below their field."""
        super().increase_indent(flow, False)


def represent_text(dumper: ManifestDumper, text: str) -> yaml.Node:
    if "\n" in text:
        return cast("Any", dumper).represent_scalar("tag:yaml.org,2002:str", text, style="|")
    return PlainDumper.yaml_representers[str](dumper, text)


ManifestDumper.add_representer(str, represent_text)


def as_yaml(manifests: Sequence[Manifest]) -> str:
    return yaml.dump_all(manifests, Dumper=ManifestDumper, sort_keys=False, allow_unicode=True, width=120, explicit_start=True)
