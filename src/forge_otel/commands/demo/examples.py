"""Loading the examples: from the checkout, or from the installed package."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    path = _folder(name) / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def on_local_ray() -> Iterator[None]:
    """Have a Ray that starts while the block lasts start on this machine, with workers that find the examples."""
    variables = {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(_folder("code_corpus")), os.environ.get("PYTHONPATH")))),
        "RAY_ADDRESS": "local",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _folder(example: str) -> Path:
    """Return the folder with an example.

    Raises:
        FileNotFoundError: there is no such example.
    """
    for folder in (INSTALLED, CHECKOUT):
        if (folder / f"{example}.py").is_file():
            return folder
    raise FileNotFoundError(f"the example {example}.py is in neither {INSTALLED} nor {CHECKOUT}")
