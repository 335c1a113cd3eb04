"""Find or build the programs that the tests run beside their own: ``python3 tools/stack [--find] [NAME …]``.

Prints the path of each program asked for, one a line; without a name, of all. A program that is not there yet is built
from the manifest that pins its sources, in a cache outside the checkout, and found there until its manifest or its
recipe changes. Runs before any virtual environment is made, so it needs nothing but Python's standard library.

``FORGE_OTEL_TOOLS`` is the cache's folder, ``$XDG_CACHE_HOME/forge-otel`` or ``~/.cache/forge-otel`` if it is not set.
``FORGE_OTEL_TOOL_<NAME>`` names a program to use instead of building one, by its path or its name on the ``PATH``:
``FORGE_OTEL_TOOL_OTELCOL_FORGE=otelcol-contrib``.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

GO = "1.26.8"
KUBERAY = "1.5.0"
GO_HINT = "Install Go from https://go.dev/dl, or any older one with: apt-get install golang-go"
NODE_HINT = "Install it with: apt-get install nodejs npm"
DEBIAN_HINT = "It is taken from a package of Debian's"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
JAVA_HINT = "Install it with: apt-get install maven default-jre-headless"
PYTHON_HINT = "Install it with: apt-get install python3 python3-venv"


class ToolError(Exception):
    """A program can be neither found nor built; the message says what to do."""


@dataclass(frozen=True)
class Tool:
    """How a program is built: ``command`` is run in an empty folder that the manifest was copied to."""

    name: str
    version: str
    command: tuple[str, ...]
    """Makes ``program``; ``{version}`` stands for the version, ``{target}`` for the folder that it is moved to."""
    program: str
    """Where the program then is in that folder."""
    needs: dict[str, str]
    """The programs that the command calls, and how to get them."""
    manifest: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the built program is kept: another manifest or recipe is another folder."""
        made_from = hashlib.sha256(repr((self.command, self.program)).encode())
        for path in self.manifest:
            made_from.update(path.read_bytes())
        return cache() / f"{self.label}-{made_from.hexdigest()[:12]}"

    @property
    def label(self) -> str:
        """The name with the version."""
        return self.name if self.name.endswith(self.version) else f"{self.name}-{self.version}"


def _pinned_version(manifest: Path, pattern: str) -> str:
    """The version in a manifest, from the numbers that the pattern's groups match."""
    match = re.search(pattern, manifest.read_text())
    if match is None:
        raise ValueError(f"{manifest}: nothing matches {pattern!r}")
    return ".".join(str(int(number)) for number in match.groups())


def _go_tool(
    name: str,
    package: str,
    pattern: str,
    *,
    module: str,
    tags: str,
    version_variable: str = "",
    sources: tuple[str, ...] = (),
) -> Tool:
    """A program that is built in a module of its own, whose go.sum pins all that it is made of."""
    flags = f"-s -w -X {version_variable}={{version}}" if version_variable else "-s -w"
    return Tool(
        name=name,
        version=_pinned_version(HERE / module / "go.mod", pattern),
        command=("go", "build", "-trimpath", "-tags", tags, "-ldflags", flags, "-o", name, package),
        program=name,
        needs={"go": GO_HINT},
        manifest=tuple(HERE / module / file for file in ("go.mod", "go.sum", *sources)),
    )


def _prometheus_tool(name: str) -> Tool:
    return _go_tool(
        name,
        f"github.com/prometheus/prometheus/cmd/{name}",
        # Release 3.16.0 is the Go module's v0.316.0.
        r"prometheus/prometheus v0\.(\d)(\d\d)\.(\d+)",
        module="prometheus",
        # Service discoveries are most of what there is to compile; static targets need none.
        tags="remove_all_sd,netgo",
        version_variable="github.com/prometheus/common/version.Version",
    )


def _python_tool(name: str, pattern: str, program: str = "") -> Tool:
    """A program in a virtual environment of its own: it needs other versions of packages than the tests. It is called
    like the tool, unless `program` says otherwise, such as the interpreter of a library.
    """
    manifest = HERE / name / "requirements.txt"
    return Tool(
        name=name,
        version=_pinned_version(manifest, pattern),
        command=(
            "sh",
            "-ec",
            (
                f"{PYTHON} -m venv environment; "
                "environment/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt; "
                # Scripts name their interpreter by its path, which is another one when the environment is complete.
                "grep -lI '^#!.*/environment/bin/' environment/bin/* | "
                "xargs sed -i '1s|^#!.*/environment/bin/|#!{target}/environment/bin/|'"
            ),
        ),
        program=f"environment/bin/{program or name}",
        needs={PYTHON: PYTHON_HINT},
        manifest=(manifest,),
    )


BUILDER_MANIFEST = ROOT / "collector-config" / "builder.yaml"
KAFKA_MANIFEST = HERE / "kafka" / "pom.xml"
KAFKA = _pinned_version(KAFKA_MANIFEST, r"kafka_2.13</artifactId>\s*<version>(\d+)\.(\d+)\.(\d+)")
STATSD_MANIFEST = HERE / "statsd" / "package.json"
AXE_MANIFEST = HERE / "axe" / "package.json"

TOOLS = {
    tool.name: tool
    for tool in (
        _prometheus_tool("promtool"),
        _prometheus_tool("prometheus"),
        Tool(
            name="promtool-2.42",
            version="2.42",
            command=(
                "sh",
                "-ec",
                (
                    "apt-get -qq -o APT::Sandbox::User=root download 'prometheus={version}*' || "
                    "{ echo 'Is it known here? Try: apt-get update' >&2; exit 1; }; "
                    "dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool; rm prometheus_*.deb"
                ),
            ),
            program="usr/bin/promtool",
            needs={"apt-get": DEBIAN_HINT, "dpkg-deb": DEBIAN_HINT},
        ),
        Tool(
            name="otelcol-forge",
            version=_pinned_version(BUILDER_MANIFEST, r"\n  version: (\d+)\.(\d+)\.(\d+)"),
            command=("go", "run", "go.opentelemetry.io/collector/cmd/builder@v{version}", "--config", "builder.yaml"),
            program="otelcol-forge",
            needs={"go": GO_HINT},
            manifest=(BUILDER_MANIFEST,),
        ),
        _go_tool(
            "jaeger",
            "github.com/jaegertracing/jaeger/cmd/jaeger",
            r"Jaeger (\d+)\.(\d+)\.(\d+)",
            module="jaeger",
            tags="netgo",
            version_variable="github.com/jaegertracing/jaeger/internal/version.latestVersion",
        ),
        _go_tool(
            "victoria-logs",
            "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs",
            r"VictoriaMetrics/VictoriaLogs v(\d+)\.(\d+)\.(\d+)",
            module="victoria-logs",
            tags="netgo",
            version_variable="github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version",
        ),
        _go_tool(
            "victoria-metrics",
            "github.com/VictoriaMetrics/VictoriaMetrics/app/victoria-metrics",
            r"VictoriaMetrics/VictoriaMetrics v(\d+)\.(\d+)\.(\d+)",
            module="victoria-metrics",
            tags="netgo",
            version_variable="github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version",
        ),
        _go_tool(
            "compose-config",
            ".",
            r"compose-go/v2 v(\d+)\.(\d+)\.(\d+)",
            module="compose-config",
            tags="netgo",
            sources=("main.go",),
        ),
        _go_tool(
            "docker-compose",
            "github.com/docker/compose/v2/cmd",
            r"docker/compose/v2 v(\d+)\.(\d+)\.(\d+)",
            module="docker-compose",
            tags="netgo",
            version_variable="github.com/docker/compose/v2/internal.Version",
        ),
        # The definition of a Ray Job in Kubernetes, of which the operator's module is the source.
        Tool(
            name="kuberay",
            version=KUBERAY,
            command=(
                "sh",
                "-ec",
                (
                    'export GOMODCACHE="$PWD/mod" GOFLAGS=-modcacherw; '
                    "go mod download github.com/ray-project/kuberay/ray-operator@v{version}; "
                    "cp mod/github.com/ray-project/kuberay/ray-operator@v{version}/config/crd/bases/ray.io_rayjobs.yaml"
                    " .; rm -r mod"
                ),
            ),
            program="ray.io_rayjobs.yaml",
            needs={"go": GO_HINT},
        ),
        # A library of jars, and Java's own interpreter of them.
        Tool(
            name="kafka",
            version=KAFKA,
            command=(
                *("mvn", "--quiet", "--batch-mode"),
                *("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DoutputDirectory=libs"),
            ),
            program=f"libs/kafka_2.13-{KAFKA}.jar",
            needs={"mvn": JAVA_HINT, "java": JAVA_HINT},
            manifest=(KAFKA_MANIFEST,),
        ),
        # The root file system of an image of Python: which version is Debian's business.
        Tool(
            name="python-root",
            version="bookworm",
            command=(
                "sh",
                "-ec",
                (
                    "debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates"
                    " {version} root >&2; ln -s python3 root/usr/bin/python;"
                    " rm -rf root/var/cache/apt root/var/lib/apt;"
                    " cp /etc/ssl/certs/ca-certificates.crt root/etc/ssl/certs/;"  # what this machine trusts
                    " tar -cf root.tar -C root .; rm -rf root"
                ),
            ),
            program="root.tar",
            needs={"debootstrap": "Install it with: apt-get install debootstrap"},
        ),
        Tool(
            name="statsd",
            version=_pinned_version(STATSD_MANIFEST, r'"statsd": "(\d+)\.(\d+)\.(\d+)"'),
            # The optional dependencies are a proxy's, syslog's and those for Windows.
            command=("npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"),
            program="node_modules/statsd/bin/statsd",
            needs={"npm": NODE_HINT, "node": NODE_HINT},
            manifest=(STATSD_MANIFEST, HERE / "statsd" / "package-lock.json"),
        ),
        Tool(
            name="axe",
            version=_pinned_version(AXE_MANIFEST, r'"axe-core": "(\d+)\.(\d+)\.(\d+)"'),
            command=("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
            program="node_modules/axe-core/axe.min.js",
            needs={"npm": NODE_HINT},
            manifest=(AXE_MANIFEST, HERE / "axe" / "package-lock.json"),
        ),
        _python_tool("airflow", r"\napache-airflow-core==(\d+)\.(\d+)\.(\d+)"),
        _python_tool("dagster", r"\ndagster==(\d+)\.(\d+)\.(\d+)"),
        _python_tool("logfire", r"\nlogfire==(\d+)\.(\d+)\.(\d+)"),
        _python_tool("openlit", r"\nopenlit==(\d+)\.(\d+)\.(\d+)", "openlit-instrument"),
        _python_tool("ray", r"\nray==(\d+)\.(\d+)\.(\d+)"),
        _python_tool("traceloop", r"\ntraceloop-sdk==(\d+)\.(\d+)\.(\d+)", "python"),
    )
}

# Go before 1.21 cannot fetch a newer Go by itself; as a module, checked against the checksum database, it can be had.
GO_TOOLCHAIN = Tool(
    name="go",
    version=GO,
    command=(
        "sh",
        "-ec",
        (
            'export GOMODCACHE="$PWD/mod" GOFLAGS=-modcacherw; '
            'go mod download "golang.org/toolchain@v0.0.1-go{version}.$(go env GOOS)-$(go env GOARCH)"; '
            "mv mod/golang.org/toolchain@* go; rm -r mod; chmod -R u+x go/bin go/pkg/tool"
        ),
    ),
    program="go/bin/go",
    needs={"go": GO_HINT},
)


def cache() -> Path:
    """The folder that built programs are kept in."""
    if folder := os.environ.get("FORGE_OTEL_TOOLS"):
        return Path(folder).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forge-otel"


def find(tool: Tool) -> Path | None:
    """The program named by the environment or built before; ``None`` if there is none.

    Raises:
        ToolError: the environment names a program that is not there.
    """
    variable = "FORGE_OTEL_TOOL_" + re.sub(r"\W", "_", tool.name).upper()
    if chosen := os.environ.get(variable):
        program = shutil.which(chosen)
        if program is None:
            raise ToolError(f"{tool.name}: {variable}={chosen} is not a program")
        return Path(program).absolute()
    built = tool.folder / tool.program
    return built if built.exists() else None


def build(tool: Tool) -> Path:
    """Build a program; it appears in the cache when it is complete, and not before.

    Raises:
        ToolError: something that the build needs is missing, or the build failed.
    """
    for program, hint in tool.needs.items():
        if shutil.which(program) is None:
            raise ToolError(f"{tool.label} needs {program}, which is not on the PATH. {hint}")
    target = tool.folder
    environment = _go_environment() if "go" in tool.needs and tool is not GO_TOOLCHAIN else None
    print(f"Building {target.name} …", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{tool.name}-") as temporary:
        folder = Path(temporary, tool.name)
        folder.mkdir()
        for path in tool.manifest:
            shutil.copy(path, folder)
        command = [part.replace("{version}", tool.version).replace("{target}", str(target)) for part in tool.command]
        status = subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=False).returncode
        if status != 0 or not (folder / tool.program).exists():
            raise ToolError(f"{tool.label} was not built: {' '.join(command)} (exit code {status})")
        try:
            folder.rename(target)
        except OSError:
            if not target.exists():  # or somebody else has just built the same
                raise
    return target / tool.program


def _go_environment() -> dict[str, str]:
    """The environment of a build with Go, in which ``go`` is new enough."""
    # Programs that call nothing outside Go run on any machine and need no C compiler here.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": f"go{GO}+auto"}
    printed = subprocess.run(["go", "version"], capture_output=True, text=True, check=True).stdout
    installed = re.search(r"go(\d+)\.(\d+)", printed)
    if installed is not None and (int(installed[1]), int(installed[2])) < (1, 21):
        go = find(GO_TOOLCHAIN) or build(GO_TOOLCHAIN)
        environment["PATH"] = os.pathsep.join([str(go.parent), environment["PATH"]])
    return environment


def main() -> int:
    """Print the paths; 1 if a program could not be found or built, 2 for misuse."""
    parser = argparse.ArgumentParser(prog="python3 tools/stack", description="Find or build what the tests run.")
    parser.add_argument("--find", action="store_true", help="only find: build nothing")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(TOOLS)}; all of them if none")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in TOOLS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(TOOLS)}")
    status = 0
    for name in arguments.names or TOOLS:
        try:
            path = find(TOOLS[name])
            if path is None and arguments.find:
                raise ToolError(f"{TOOLS[name].label} is not here; build it with: python3 tools/stack {name}")
            print(path or build(TOOLS[name]), flush=True)
        except ToolError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
