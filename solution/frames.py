"""Results that show as tables: at the prompt of Python, and in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 30  # rows
_WIDEST = 60  # characters of a cell at the prompt


def frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Rows as a DataFrame; its import takes half a second, and only who asks for a table waits for it."""
    import pandas as pd

    return pd.DataFrame(list(rows), columns=None if columns is None else list(columns))


class ShownAsTable:
    """A result that a notebook, or the prompt of Python, shows as the table of its `to_frame`."""

    def to_frame(self) -> pd.DataFrame:
        """The result as a DataFrame."""
        raise NotImplementedError

    def __repr__(self) -> str:
        text: str = self.to_frame().to_string(
            index=False, max_rows=_SHOWN, max_colwidth=_WIDEST, float_format="{:.4f}".format
        )
        return text

    def _repr_html_(self) -> str:
        text: str = self.to_frame().to_html(
            index=False, max_rows=_SHOWN, border=0, float_format="{:.4f}".format, escape=True
        )
        return text
