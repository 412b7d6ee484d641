"""Rows of Parquet and Arrow files: a batch at a time, so that memory holds a row group's pages and never the file."""

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sdjob.core.errors import DataError, UnavailableError

# https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format: how a stream ends; a reader takes any end for it
END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
BATCH_ROWS = 16  # pictures of a batch are in memory at once
BUFFER_BYTES = 1024 * 1024
INSTALL = "pip install 'sdjob[data]'"


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row with all its columns, for metadata.parquet; `where` is file: row, from 0."""
    with _arrow_errors(str(path)):
        columns = parquet_columns(path, name=str(path))
    for number, fields in enumerate(parquet_batches(path, columns=columns, name=str(path))):
        yield f"{path}: row {number}", fields


def parquet_columns(path: Path, *, name: str) -> tuple[str, ...]:
    with _arrow_errors(name), closing(_parquet(path)) as file:
        return tuple(file.schema_arrow.names)


def parquet_batches(path: Path, *, columns: Sequence[str], name: str) -> Iterator[dict[str, Any]]:
    """The rows' chosen columns. Raises DataError for a file that is torn or damaged."""
    with _arrow_errors(name), closing(_parquet(path)) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(columns)):
            yield from _rows(batch, columns=columns)


def arrow_columns(path: Path, *, name: str) -> tuple[str, ...]:
    with _arrow_errors(name), _arrow(path) as reader:
        return tuple(reader.schema.names)


def arrow_batches(path: Path, *, columns: Sequence[str], name: str) -> Iterator[dict[str, Any]]:
    """The same of an Arrow file, in the stream format (as `save_to_disk` writes) or the file format."""
    with _arrow_errors(name), _arrow(path) as reader:
        for batch in _record_batches(reader):
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield from _rows(batch.slice(start, BATCH_ROWS), columns=columns)


def pyarrow_module() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415, loaded by those who have such data
    except ImportError as error:
        raise UnavailableError("Parquet and Arrow files need the package pyarrow.", next_step=INSTALL) from error
    return pyarrow


def _parquet(path: Path) -> Any:
    """Without pre_buffer, which is pyarrow's default for places far away and reads all that will be asked for into memory."""
    return pyarrow_module().parquet.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES)


@contextmanager
def _arrow(path: Path) -> Generator[Any]:
    pyarrow = pyarrow_module()
    with pyarrow.memory_map(str(path)) as source:
        try:
            reader = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            reader = pyarrow.ipc.open_file(source)
        else:
            _check_end(path, error=pyarrow.ArrowInvalid)
        with reader:
            yield reader


def _check_end(path: Path, *, error: type[Exception]) -> None:
    with path.open("rb") as file:
        file.seek(-len(END_OF_STREAM), os.SEEK_END)
        if file.read() != END_OF_STREAM:
            raise error("the stream has no end")


def _record_batches(reader: Any) -> Iterator[Any]:
    if hasattr(reader, "num_record_batches"):  # the file format
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _rows(batch: Any, *, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    values = [batch.column(name).to_pylist() for name in columns]
    for row in zip(*values, strict=True):
        yield dict(zip(columns, row, strict=True))


@contextmanager
def _arrow_errors(name: str) -> Generator[None]:
    """pyarrow raises ArrowInvalid (a ValueError) or OSError for damage, and UnicodeDecodeError for text that is none."""
    pyarrow = pyarrow_module()
    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"is damaged or cut short: {str(error).strip().rstrip('.')}.",
            where=name,
            next_step="Upload it again, or take it out of the data set.",
        ) from error
