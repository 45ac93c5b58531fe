"""Tables for data frames."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import pandas
    import polars


class Table:
    """What readers of the Arrow PyCapsule interface take as it is, and data frames of it."""

    __slots__ = ()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise NotImplementedError

    def to_polars(self) -> polars.DataFrame:
        """A data frame of polars, without copies of numbers. Needs polars."""
        import polars

        return polars.DataFrame(self)

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame of pandas. Needs pandas and pyarrow."""
        pyarrow = importlib.import_module("pyarrow")
        return cast("pandas.DataFrame", pyarrow.table(self).to_pandas())
