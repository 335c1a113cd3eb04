"""`docker-compose.yml`, and what is added to it, as the Compose specification's reference implementation reads it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from .tools import tool

ROOT = Path(__file__).parents[2]

Service = Mapping[str, Any]


SCALE = ("docker-compose.yml", "docker-compose.scale.yml")
"""The files of the project with agents and gateways."""


@functools.cache
def project(*files: str) -> Mapping[str, Any]:
    """The project of these files, or the default one: variables of `.env` are in their places, all profiles are on."""
    command = [tool("compose-config"), ROOT, *(ROOT / file for file in files)]
    done = subprocess.run(command, env={"PATH": os.defpath}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found: Mapping[str, Any] = json.loads(done.stdout)
    return found


@functools.cache
def described() -> Mapping[str, Service]:
    """The services as `docker-compose.yml` has them, for programs that run without containers, and without the
    reference implementation.
    """
    found: Mapping[str, Service] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def options_of(service: str, values: Mapping[str, str]) -> list[str]:
    """A service's options there, `name=value` each, with these values for what is another one outside of a container.

    Raises `KeyError` for a value whose option the service does not have.
    """
    options = dict(option.split("=", 1) for option in described()[service]["command"] if "=" in option)
    flags = [option for option in described()[service]["command"] if "=" not in option]
    return [f"{name}={value}" for name, value in _replaced(options, values).items()] + flags


def variables_of(service: str, **values: str) -> dict[str, str]:
    """A service's variables there, with these values for what is another one outside of a container.

    Raises `KeyError` for a variable that the service does not have.
    """
    return _replaced(described()[service]["environment"], values)


def _replaced(given: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    if unknown := values.keys() - given.keys():
        raise KeyError(*sorted(unknown))
    return {**given, **values}


def dotenv() -> dict[str, str]:
    """The variables in `.env`."""
    lines = (ROOT / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def image_table() -> list[dict[str, str]]:
    """The rows of `tools/stack/images.tsv`, by the names of their columns."""
    lines = (ROOT / "tools" / "stack" / "images.tsv").read_text().splitlines()
    (*_, header) = (line for line in lines if line.startswith("#"))
    names = header.removeprefix("# ").split("\t")
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [dict(zip(names, row, strict=True)) for row in rows]


def mounts(service: Service, kind: str) -> dict[str, str]:
    """What is mounted, by where: `bind` has paths here, `volume` names of volumes."""
    return {mount["target"]: mount["source"] for mount in service.get("volumes", ()) if mount["type"] == kind}


def option(options: list[str], name: str) -> str:
    """The value of an option that is given once, as `name=value`."""
    (value,) = [part.partition("=")[2] for part in options if part.startswith(f"{name}=")]
    return value
