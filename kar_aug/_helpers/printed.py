"""How results are shown at the end of a notebook's cell."""

from __future__ import annotations

from typing import Any


class Printed:
    """Shown by Jupyter and IPython as it is printed, and not field by field."""

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": str(self)}

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # what counts of tuples
        printer.text(str(self))
