"""Loading the examples: from the checkout, or from the installed package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

INSTALLED = Path(__file__).with_name("_examples")
CHECKOUT = Path(__file__).parents[4] / "examples"


def load_example(name: str) -> ModuleType:
    """Import an example by its name.

    Raises:
        FileNotFoundError: there is no such example.
    """
    if name in sys.modules:
        return sys.modules[name]
    path = next((path for folder in (INSTALLED, CHECKOUT) if (path := folder / f"{name}.py").is_file()), None)
    if path is None:
        raise FileNotFoundError(f"the example {name}.py is in neither {INSTALLED} nor {CHECKOUT}")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
