"""Everything that is generated from the registry.

Each module here has one function, `files(registry)`, which gives the text of files by their path from the checkout's
root. So a file is generated, compared and tested in one way, whatever is in it.
"""

from __future__ import annotations
