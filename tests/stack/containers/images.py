"""Images under the names that `.env` pins, made of the programs that the other tests run.

`tools/stack/images.tsv` says what the published images are like, and so are these. What they are imported from is a
root file system in a tar archive.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.compose import dotenv, image_table
from tests.support.needs import lacking
from tests.support.tools import tool

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
PROGRAMS = {
    "OTELCOL_IMAGE": "otelcol-forge",
    "PROMETHEUS_IMAGE": "prometheus",
    "JAEGER_IMAGE": "jaeger",
    "VICTORIA_LOGS_IMAGE": "victoria-logs",
    "GRAPHITE_IMAGE": "victoria-metrics",
}
"""Go programs, which need nothing but themselves."""


@dataclass(frozen=True)
class Image:
    """A row of the table."""

    variable: str
    entry_point: str
    user: str
    folder: str
    shell: bool

    @property
    def name(self) -> str:
        """The name with the tag."""
        return dotenv()[self.variable]

    @property
    def options(self) -> list[str]:
        """The image's configuration, as options of `docker import`."""
        changes = [f"LABEL made-from={self.fingerprint}"]
        if self.entry_point:
            changes.append(f"ENTRYPOINT {json.dumps(self.entry_point.split())}")
        if self.user:
            changes.append(f"USER {self.user}")
        if self.folder:
            changes.append(f"WORKDIR {self.folder}")
        if not self.entry_point:
            changes.append('CMD ["sh"]')
        return [option for change in changes for option in ("--change", change)]

    @property
    def fingerprint(self) -> str:
        """What it is made of: where this changes, it has to be made again."""
        made_of = [repr(self), Path(__file__).read_text(), *(str(path) for path in _programs(self.variable))]
        return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]

    def root(self) -> Path | io.BytesIO:
        """The root file system, as a tar archive."""
        if self.variable == "PYTHON_IMAGE":
            return tool("python-root")
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            _add_folder(archive, "tmp", 0o1777)
            if self.folder and self.variable != "STATSD_IMAGE":
                _add_folder(archive, self.folder.strip("/"), 0o777)
            _add_text(archive, "etc/passwd", PASSWD)
            if CERTIFICATES.exists():
                archive.add(CERTIFICATES.resolve(), CERTIFICATES.as_posix().lstrip("/"))
            if self.shell:
                _add_busybox(archive)
            if self.variable in PROGRAMS:
                archive.add(tool(PROGRAMS[self.variable]).resolve(), self.entry_point.lstrip("/"))
            if self.variable == "STATSD_IMAGE":
                _add_statsd(archive, self.folder.strip("/"))
        buffer.seek(0)
        return buffer


def images() -> Iterator[Image]:
    """All rows of the table but Grafana's, whose image cannot be made."""
    for row in image_table():
        if row["variable"] != "GRAFANA_IMAGE":
            yield Image(
                row["variable"],
                row["entry point"],
                row["user"],
                row["working directory"],
                "sh" in row["programs"].split(),
            )


def _programs(variable: str) -> list[Path]:
    if variable in PROGRAMS:
        return [tool(PROGRAMS[variable])]
    return {"PYTHON_IMAGE": lambda: [tool("python-root")], "STATSD_IMAGE": lambda: [tool("statsd"), _node()]}.get(
        variable, list
    )()


def _node() -> Path:
    node = shutil.which("node")
    if node is None:
        lacking("needs Node.js: apt-get install nodejs npm")
    return Path(node).resolve()


def _add_folder(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _add_text(archive: tarfile.TarFile, name: str, content: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content.encode())
    archive.addfile(entry, io.BytesIO(content.encode()))


def _add_busybox(archive: tarfile.TarFile) -> None:
    found = shutil.which("busybox")
    if found is None:
        lacking("needs a static BusyBox: apt-get install busybox-static")
    archive.add(Path(found).resolve(), "bin/busybox")
    for applet in subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)


def _add_statsd(archive: tarfile.TarFile, folder: str) -> None:
    """StatsD's package with what it needs, and Node.js with the libraries that it is linked to."""
    package = tool("statsd").resolve().parents[1]
    archive.add(package, folder, filter=_without_links)
    modules = package.parent
    for module in modules.iterdir():
        if module != package and not module.name.startswith("."):
            archive.add(module, f"{folder}/node_modules/{module.name}", filter=_without_links)
    node = _node()
    archive.add(node, "bin/node")
    linked = subprocess.run(["ldd", str(node)], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        archive.add(Path(library).resolve(), library.lstrip("/"))


def _without_links(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.issym() else entry
