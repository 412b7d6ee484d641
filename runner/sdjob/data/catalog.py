"""Which files belong to a configuration and a split: asked of the `datasets` library itself, without its touching the place.

It is shown a folder of empty files with the names of the real ones, and the real data card; its answer is a list of names.
"""

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdjob.core.errors import DataError, MissingError, UnavailableError, UsageError
from sdjob.data.folder import METADATA_NAMES
from sdjob.data.layout import Kind, Layout, kind_of_file, no_split, nothing_to_train_on
from sdjob.data.parquet import INSTALL
from sdjob.data.source import Source
from sdjob.spec.sources import DataSource

CARD = "README.md"
NOTES = (
    CARD,
    ".huggingface.yaml",
    "dataset_infos.json",
)  # what `datasets` reads beside data (REPOCARD_FILENAME, ... in its config)
# https://huggingface.co/docs/hub/datasets-manual-configuration: `configs:` in the card's YAML header
CONFIGS = re.compile(rb"\A(?:\xef\xbb\xbf)?---\r?\n(?:.*\n)*?configs:", re.MULTILINE)
KINDS: dict[str, Kind] = {
    "parquet": "parquet",
    "arrow": "arrow",
    "webdataset": "webdataset",
    "json": "table",
    "csv": "table",
    "imagefolder": "pictures",
}
# Options of a data card that say how a table is written, by what we call them.
TABLE_OPTIONS = {"sep": "delimiter", "delimiter": "delimiter", "field": "field"}
# Options that do not change which rows there are, or what is in them.
HARMLESS = {"name", "version", "data_dir", "data_files", "description", "features", "batch_size", "columns", "chunksize"}
HARMLESS |= {"chunk_size", "drop_labels", "drop_metadata", "metadata_filenames", "filters", "fragment_scan_options"}


def declares_configs(card: bytes | None) -> bool:
    header = (card or b"").split(b"\n---", 1)[0]
    return bool(CONFIGS.match(header))


def catalogued(source: Source, *, keys: Sequence[str], data: DataSource, folder: Path) -> Layout:
    """The layout of the split, from among `keys`. `folder` is an empty folder of ours, which the caller removes.

    Raises UsageError where a configuration must be chosen, MissingError for one, or a split, that is not there, both naming
    those there are; DataError where `datasets` cannot make sense of the files.
    """
    skeleton = folder / "skeleton"
    _draw(source, keys=keys, skeleton=skeleton)
    builder = _builder(source, skeleton=skeleton, config=data.config, cache=folder / "cache")
    kind = KINDS.get(builder.name)
    if kind is None:
        raise DataError(f"is a data set of {builder.name} files, which hold no pictures.", where=source.place.uri)
    splits = {
        str(name): tuple(os.path.relpath(file, os.path.realpath(skeleton)) for file in files)
        for name, files in (builder.config.data_files or {}).items()
    }
    if data.split not in splits:
        raise no_split(data.split, there=splits, where=source.place.uri)
    chosen = tuple(key for key in dict.fromkeys(splits[data.split]) if kind_of_file(key) == kind)
    return Layout(kind, chosen, _options(builder.config, kind=kind, where=source.place.uri), folders=None)


def _draw(source: Source, *, keys: Sequence[str], skeleton: Path) -> None:
    """Caption files and the like are left out: `datasets` counts endings to tell what a place holds."""
    skeleton.mkdir()
    drawn = [key for key in keys if kind_of_file(key) is not None or posixpath.basename(key).lower() in METADATA_NAMES]
    if not drawn:
        raise nothing_to_train_on(keys, where=source.place.uri)
    for key in drawn:
        path = skeleton / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for key in NOTES:
        if (note := source.note(key)) is not None:
            (skeleton / key).write_bytes(note)


def _builder(source: Source, *, skeleton: Path, config: str | None, cache: Path) -> Any:
    datasets = _datasets_module()
    try:
        return datasets.load_dataset_builder(str(skeleton), name=config, cache_dir=str(cache))
    except Exception as error:  # a card that is wrong makes it raise nearly anything: ValueError, TypeError, yaml's errors
        _explain_config(datasets, skeleton=skeleton, config=config, where=source.place.uri)
        why = str(error).replace(os.path.realpath(skeleton), source.place.uri).replace(str(skeleton), source.place.uri)
        raise DataError(
            f"`datasets` cannot tell what is in it: {' '.join(why.split()).rstrip(' .^')}.",
            where=source.place.uri,
            next_step=f"Mend the configs in its {CARD}, or the names of its files.",
        ) from error


def _explain_config(datasets: Any, *, skeleton: Path, config: str | None, where: str) -> None:
    """Raises where the choice of a configuration is the trouble."""
    try:
        names = list(datasets.get_dataset_config_names(str(skeleton)))
        default = datasets.get_dataset_default_config_name(str(skeleton))
    except Exception:  # then the card itself is the trouble, and the first error says so
        return
    there = ", ".join(map(repr, names))
    if config is not None and config not in names:
        raise MissingError(
            f"has no configuration {config!r}; there are {there}.", where=where, next_step="Set data.config to one of them."
        )
    if config is None and default is None and len(names) > 1:
        raise UsageError(f"has several configurations: {there}.", where=where, next_step="Set data.config to one of them.")


def _options(config: Any, *, kind: Kind, where: str) -> dict[str, str]:
    """What the card says of the files' form. What this reader does not know is refused, since it would change the rows."""
    if kind == "pictures":
        return {}
    options: dict[str, str] = {}
    for name, value in _unusual(config).items():
        if kind == "table" and name in TABLE_OPTIONS and isinstance(value, str):
            options[TABLE_OPTIONS[name]] = value
        elif name not in HARMLESS:
            raise DataError(f"its data card sets {name!r}, which is not understood here.", where=where)
    return options


def _unusual(config: Any) -> Mapping[str, Any]:
    usual = vars(type(config)())
    return {name: value for name, value in vars(config).items() if value is not None and value != usual.get(name)}


def _datasets_module() -> Any:
    try:
        import datasets  # noqa: PLC0415, loaded by those who have such data
    except ImportError as error:
        raise UnavailableError(
            "this data set needs the package datasets, which says which files are of which split.", next_step=INSTALL
        ) from error
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    return datasets
