"""Checks of installed packages: versions that do not fit together, and packages that hide others."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from importlib import metadata
from platform import python_version
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..._version import __version__
from . import problems
from .diagnostic import Diagnostic
from .startup import Setup

DISTRIBUTION: Final = "forge-otel"
_OURS: Final = ("opentelemetry-", DISTRIBUTION)


def versions(_: Setup) -> Iterator[Diagnostic]:
    """Report the versions that a bug report needs."""
    parts = [f"forge-otel {__version__}", f"Python {python_version()}"]
    for name in ("opentelemetry-sdk", "opentelemetry-distro"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"no {name}")
    with contextlib.suppress(Exception):  # a package of another name `forge`, reported below
        from forge.storage.migrations import VERSION  # noqa: PLC0415 - as above

        parts.append(f"storage schema {VERSION}")
    yield Diagnostic("ok", "versions", ", ".join(parts))


def same_package(_: Setup) -> Iterator[Diagnostic]:
    """Find other distributions with a package `forge`: the last one installed overwrites files."""
    for name in sorted(set(metadata.packages_distributions().get("forge", ()))):
        if name != DISTRIBUTION:
            remedy = f"pip uninstall {name}, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
            yield problems.SAME_PACKAGE.found("packages", f"{name} installs a package forge as well", remedy)


def packages_twice(_: Setup) -> Iterator[Diagnostic]:
    """Find distributions that are on Python's path in more than one version."""
    places: defaultdict[str, dict[str, str]] = defaultdict(dict)  # the first is imported
    for distribution in metadata.distributions():
        name = str(canonicalize_name(distribution.name or ""))
        if name.startswith(_OURS):
            places[name].setdefault(str(distribution.locate_file("")), distribution.version)
    for name, found in sorted(places.items()):
        if len(set(found.values())) > 1:
            (place, version), *others = found.items()
            hidden = ", ".join(f"{other} in {folder}" for folder, other in others)
            message = f"{name} {version} in {place} hides {hidden}"
            yield problems.PACKAGE_TWICE.found("packages", message)


def package_versions(_: Setup) -> Iterator[Diagnostic]:
    """Find packages of OpenTelemetry that require other versions of each other."""
    installed: dict[str, str] = {}
    requirements: list[tuple[str, str]] = []
    for distribution in metadata.distributions():
        name = str(canonicalize_name(distribution.name or ""))
        if name.startswith(_OURS) and name not in installed:
            installed[name] = distribution.version
            requirements += [(name, text) for text in distribution.requires or ()]
    unmet = []
    for name, text in sorted(requirements):
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        version = installed.get(canonicalize_name(requirement.name))
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if version and applies and not requirement.specifier.contains(version, prereleases=True):
            unmet.append(f"{name} {installed[name]} requires {requirement.name}{requirement.specifier}, not {version}")
    if unmet:
        yield problems.PACKAGE_VERSIONS.found("packages", "; ".join(unmet))
