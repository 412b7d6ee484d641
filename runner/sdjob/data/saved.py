"""What `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write: Arrow files, named in order by a state.json."""

import json
import posixpath
from typing import Any

from sdjob.core.errors import DataError
from sdjob.data.layout import Layout, no_split
from sdjob.data.source import Source

# https://github.com/huggingface/datasets/blob/main/src/datasets/config.py: DATASET_STATE_JSON_FILENAME, DATASETDICT_JSON_FILENAME
STATE, SPLITS = "state.json", "dataset_dict.json"


def saved_layout(source: Source, *, split: str) -> Layout | None:
    """The split's files; None where this is no saved data set. Raises MissingError for a split that is not there."""
    if (note := source.note(SPLITS)) is not None:
        splits = _object(note, where=source.where(SPLITS)).get("splits")
        names = splits if isinstance(splits, list) else []
        if split not in names:
            raise no_split(split, there=map(str, names), where=source.place.uri)
        return Layout("arrow", _files(source, folder=split))
    if STATE not in source.infos:
        return None
    state = _object(source.note(STATE) or b"", where=source.where(STATE))
    if "_data_files" not in state:
        return None
    own = str(state.get("_split") or split).partition("[")[0]  # a slice is called `train[:100]`
    if own != split:
        raise no_split(split, there=[own], where=source.place.uri)
    return Layout("arrow", _files(source, folder=""))


def _files(source: Source, *, folder: str) -> tuple[str, ...]:
    key = posixpath.join(folder, STATE)
    note = source.note(key)
    if note is None:
        raise DataError("is missing: the data set was not saved to its end.", where=source.where(key), next_step="Save it again.")
    state = _object(note, where=source.where(key))
    try:
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError("names no data files.", where=source.where(key), next_step="Save the data set again.") from error
    keys = tuple(posixpath.join(folder, name) for name in names)
    gone = [key for key in keys if key not in source.infos]
    if gone:
        raise DataError(f"names {gone[0]!r}, which is not there.", where=source.where(key), next_step="Save the data set again.")
    return keys


def _object(note: bytes, *, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(note)
    except ValueError as error:
        raise DataError("is not JSON.", where=where, next_step="Save the data set again.") from error
    if not isinstance(fields, dict):
        raise DataError("is no JSON object.", where=where, next_step="Save the data set again.")
    return fields
