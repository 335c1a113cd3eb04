"""Loading a registry: reads its files, and resolves the references between definitions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import structure
from .findings import Finding, NoRegistryError, RegistryError
from .model import Place, Registry
from .resolve import Resolver
from .source import Document, read

REGISTRY: Final = Path(__file__).parent.parent / "semconv" / "registry"
"""The directory of Forge's registry."""

MANIFEST: Final = "manifest.yaml"
MAX_FILES: Final = 1000


@dataclass(slots=True)
class LoadResult:
    """The result of loading a registry that may be invalid."""

    registry: Registry | None = None
    """None if a file was unusable, so that references cannot be resolved."""
    findings: list[Finding] = field(default_factory=list)
    files: int = 0


def load(directory: Path = REGISTRY) -> Registry:
    """Load a registry: `manifest.yaml` and the `definition/2` files of a directory and its subdirectories, by name.

    Raises:
        NoRegistryError: there is no such directory, or no manifest in it.
        RegistryError: files, their structure or their references are invalid.
    """
    reading = try_load(directory)
    if reading.registry is None or reading.findings:
        raise RegistryError(directory, reading.findings)
    return reading.registry


def try_load(directory: Path) -> LoadResult:
    """Load a registry, and collect the findings instead of raising them.

    Raises:
        NoRegistryError: there is no such directory, or no manifest in it.
    """
    reading = LoadResult()
    documents: list[Document] = []
    for file in _files(directory):
        document, findings = read(file)
        reading.findings += findings
        reading.files += 1
        if document is not None:
            documents.append(document)
    if reading.files > MAX_FILES:
        reading.findings.append(Finding(Place(directory, 1), "file/size", f"more than {MAX_FILES} files"))
    resolver = Resolver()
    complete = len(documents) == reading.files <= MAX_FILES
    for document in documents:
        if document.file == directory / MANIFEST:
            faults = structure.faults(document, "manifest")
            resolver.manifest = document.data
        else:
            faults = structure.faults(document, "definition")
            if structure.FILE_FORMAT not in faults:
                resolver.add(document, faults)
            complete &= not any(len(path) == 1 for path in faults)
        reading.findings += [finding for found in faults.values() for finding in found]
    if complete:
        reading.registry = resolver.resolve()
        reading.findings += resolver.findings
    if not reading.findings and reading.registry is not None and not reading.registry.names():
        message = f"defines nothing, neither here nor in other files of {directory}"
        reading.findings.append(Finding(Place(directory / MANIFEST, 1), "registry/empty", message))
    return reading


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files of a registry, the manifest first."""
    # os.path, because the methods of Path raise exceptions for inaccessible paths.
    if not os.path.lexists(directory):
        raise NoRegistryError(directory, "there is no such directory")
    if not os.path.isdir(directory):
        raise NoRegistryError(directory, "not a directory")
    manifest = directory / MANIFEST
    if not os.path.lexists(manifest):
        raise NoRegistryError(directory, f"not a registry: {MANIFEST} is missing")
    yield manifest
    found = 0
    for folder, folders, names in os.walk(directory, onerror=_refuse):
        # A directory with a file's name is yielded, so that reading it is reported.
        odd = [name for name in folders if name.endswith((".yaml", ".yml"))]
        folders[:] = sorted(name for name in folders if name not in odd and not name.startswith("."))
        for name in sorted([*names, *odd]):
            file = Path(folder, name)
            if file != manifest and name.endswith((".yaml", ".yml")) and not name.startswith("."):
                yield file
                found += 1
                if found > MAX_FILES:
                    return


def _refuse(error: OSError) -> None:
    raise NoRegistryError(Path(error.filename), error.strerror or str(error))
