"""The documentation's site: `make docs`."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "forge-otel"
author = "the forge-otel authors"
release = version = version_of("forge-otel")

extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
exclude_patterns = ["_site", "*.py"]
nitpicky = True

html_theme = "furo"
html_title = "forge-otel"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
