"""The table of settings in the page on configuration."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path
from typing import Any, Final

from forge_otel.config.config import PREFIX, ForgeConfig
from forge_otel.config.fields import settings_of

from . import PAGE
from .reference import table

BEGIN: Final = (
    "<!-- Generated from src/forge_otel/config by `make generate`. Do not edit up to the end of the table. -->\n"
)
END: Final = "<!-- End of the table. -->\n"


def files(root: Path) -> dict[str, str]:
    """Return the page with the current table in place of the one between the markers."""
    text = (root / PAGE).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return {PAGE: "\n".join([before + BEGIN, *_rows(), END + after])}


def _rows() -> list[str]:
    descriptions = _descriptions()
    rows = []
    for field in dataclasses.fields(ForgeConfig):
        variable = f"`{PREFIX}{field.name.upper()}`" if settings_of(ForgeConfig)[field.name].parse else "–"
        rows.append([f"`{field.name}`", variable, _default(field.default), descriptions[field.name]])
    return table(["Setting", "Environment variable", "Default", "Meaning"], rows)


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, frozenset):
        return "all"
    return f"`{str(value).lower()}`"


def _descriptions() -> dict[str, str]:
    """Return the docstrings of the fields, by name."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(ForgeConfig))).body
    assert isinstance(definition, ast.ClassDef)
    descriptions = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                descriptions[name] = " ".join(text.split())
    return descriptions
