"""The base of every part of the job file: frozen, strict about types, and without room for misspelled keys."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A mapping in the job file. Each field's text below it is the reader's, the JSON schema's and the documents' at once."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
