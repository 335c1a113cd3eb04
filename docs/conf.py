"""The documentation's site: `make docs`."""

from __future__ import annotations

import enum
import re
from importlib.metadata import version as version_of
from typing import Any

from sphinx.application import Sphinx

project = "forge-otel"
author = "the forge-otel authors"
release = version = version_of("forge-otel")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
exclude_patterns = ["_site", "*.py"]
nitpicky = True
# Types of other projects are not linked: that takes their inventories, and these a network.
nitpick_ignore_regex = [("py:.*", r"(?!forge(_otel)?\.[A-Z]).*")]

# A name in one pair of backticks is code, in docstrings as in these pages.
default_role = "code"
autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "forge-otel"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

FILLED_IN_BY_RUNS = re.compile(r"(Result|Summary|Snapshot|State|Ledger|Run|Row|Charge|DeadLetter|DeadLetterKey)$")
"""Classes that users read and never make: their signatures would only repeat the fields."""


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", raises_as_fields)
    app.connect("autodoc-process-signature", short_signature)


def raises_as_fields(*arguments: Any) -> None:
    """Turn the `Raises:` section of a docstring into fields.

    Napoleon does so, too, but takes the beginning of an attribute's description, up to a colon, for its type.
    """
    lines: list[str] = arguments[-1]
    if "Raises:" not in lines:
        return
    begin = lines.index("Raises:") + 1
    fields = [re.sub(r"^ {4}(\w+): ", r":raises \1: ", line) for line in lines[begin:]]
    lines[begin - 1 :] = ["", *fields]


def short_signature(_app: Sphinx, what: str, name: str, obj: Any, *signature: Any) -> tuple[str, str | None] | None:
    """Leave out the parameters of classes that nobody calls, and the addresses of default values."""
    _options, parameters, returned = signature
    if what != "class" or parameters is None:
        return None
    if issubclass(obj, enum.Enum) or FILLED_IN_BY_RUNS.search(name):
        return "", returned
    return re.sub(r"<[^<>]+>", "...", parameters), returned
