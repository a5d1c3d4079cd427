"""The child that reads parquet: writes each row as a line of JSON. Knows pyarrow and the shape of rows.

A null counts as a field that is not there, since a column stands in every row.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stapo_core.data.child import Refused, serve

_BATCH_ROWS = 256
_MAX_METADATA = 64 * 2**20


def write_rows(asked: dict[str, Any]) -> None:
    """All rows of `asked["path"]`. Raises Refused."""
    import pyarrow as pa  # here, so that the limits hold while it loads
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(asked["path"], thrift_string_size_limit=_MAX_METADATA, thrift_container_size_limit=2**20)
        _check_schema(file.schema_arrow)
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False):
            for row in batch.to_struct_array():
                sys.stdout.write(_line(row))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise Refused(f"the parquet data is damaged ({str(error)[:200]}); write the file anew") from error


def _check_schema(schema: Any) -> None:
    names = schema.names
    if twice := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise Refused(f"the column {json.dumps(twice)} stands twice; keep one")
    for column in schema:
        if not _is_plain(column.type):
            raise Refused(f"the column {json.dumps(column.name)} holds {column.type}; cast it to a string")


def _is_plain(kind: Any) -> bool:
    """Whether JSON has a word for such values."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(kind.field(place).type) for place in range(kind.num_fields))
    return bool(
        types.is_null(kind)
        or types.is_boolean(kind)
        or types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_string(kind)
        or types.is_large_string(kind)
    )


def _line(row: Any) -> str:
    try:
        return json.dumps(_without_nulls(row.as_py()), ensure_ascii=False) + "\n"
    except UnicodeDecodeError:
        return '"\udcff"\n'  # written as a byte that is not UTF-8, for the reader to find


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(member) for member in value]
    return value


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    serve(write_rows)
