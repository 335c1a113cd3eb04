"""The recipe for KubeRay: manifests that keep to the schemas, and its job on a local Ray with its pods' variables."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.collector import running_collector
from tests.support.recipes import copy_files, environment
from tests.support.tools import tool

from .test_kubernetes import KINDS, manifest, resolved, validate

CONFIGURATIONS = Path(__file__).parents[2] / "collector-config"
SECRETS = {"corpus": {"storage-url": "sqlite:///corpus.db"}, "otelcol-gateways": {"token": "abc123"}}


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    """KubeRay's own definition of a job, as a schema that refuses unknown fields, as `kubectl` does."""
    definition = yaml.load(tool("kuberay").read_text(), yaml.CSafeLoader)
    [version] = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    names = {"apiVersion": f"{definition['spec']['group']}/v1", "kind": definition["spec"]["names"]["kind"]}
    schema["properties"] |= {key: {"const": value} for key, value in names.items()} | {"metadata": {"type": "object"}}
    return schema


def closed(schema: Any) -> Any:
    """A schema whose objects have no other properties than it says."""
    if isinstance(schema, list):
        return list(map(closed, schema))
    if not isinstance(schema, dict):
        return schema
    ends = {"additionalProperties": False} if "properties" in schema and schema.get("type") == "object" else {}
    return {**ends, **{key: closed(value) for key, value in schema.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy_files("kuberay", tmp_path)
    return tmp_path


def containers(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The container of the head, and those of the groups of workers."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_manifests_keep_to_the_schemas(folder: Path, definition: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(definition).validate(manifest(folder, "rayjob"))
    agents = manifest(folder, "agents")
    validate(agents, KINDS[agents["apiVersion"], agents["kind"]])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "unknown"),
    [("spec", "workers"), ("rayClusterSpec", "workerGroupSpec"), ("headGroupSpec", "rayStartParameters")],
)
def test_the_schema_refuses_unknown_fields(place: str, unknown: str, folder: Path, definition: dict[str, Any]) -> None:
    job = manifest(folder, "rayjob")
    parts = {"spec": job["spec"], "rayClusterSpec": job["spec"]["rayClusterSpec"]}
    parts["headGroupSpec"] = parts["rayClusterSpec"]["headGroupSpec"]
    parts[place][unknown] = {}
    with pytest.raises(jsonschema.ValidationError, match=f"'{unknown}' was unexpected"):
        jsonschema.Draft202012Validator(definition).validate(job)


def test_names_in_manifests_lead_somewhere(folder: Path) -> None:
    job, agents = manifest(folder, "rayjob"), manifest(folder, "agents")
    template = agents["spec"]["template"]
    assert agents["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    [agent] = template["spec"]["containers"]
    [port] = agent["ports"]
    variables = [resolved(container["env"], SECRETS) for container in containers(job)]
    addresses = {each["OTEL_EXPORTER_OTLP_ENDPOINT"] for each in variables}
    assert addresses == {f"http://192.0.2.7:{port['hostPort']}"}
    assert port["hostPort"] == port["containerPort"]
    assert {each["OTEL_SERVICE_NAME"] for each in variables} == {job["metadata"]["name"]}
    [image] = {container["image"] for container in containers(job)}
    assert f"docker build --tag {image}" in (Path(__file__).parents[2] / "docs/recipes/kuberay.md").read_text()
    [version] = re.findall(r"^FROM rayproject/ray:([\d.]+)-", (folder / "Dockerfile").read_text(), re.MULTILINE)
    assert version == job["spec"]["rayClusterSpec"]["rayVersion"]
    mounts = {mount["name"]: mount["mountPath"] for mount in agent["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in template["spec"]["volumes"]}
    settings = resolved(agent["env"], SECRETS)
    assert settings["OTELCOL_TLS_CA"].startswith(mounts["gateways"])
    assert settings["OTELCOL_DATA"] == mounts["data"]


def test_the_agent_accepts_its_configuration(folder: Path) -> None:
    [agent] = manifest(folder, "agents")["spec"]["template"]["spec"]["containers"]
    arguments = [argument.replace("/etc/otelcol", str(CONFIGURATIONS)) for argument in agent["args"]]
    done = subprocess.run(
        [tool("otelcol-forge"), "validate", *arguments],
        env=environment(**{**resolved(agent["env"], SECRETS), "OTELCOL_DATA": str(folder / "data")}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_job_runs_with_the_variables_of_its_head(folder: Path) -> None:
    job = manifest(folder, "rayjob")
    head, *_ = containers(job)
    with running_collector() as agent:
        variables = {**resolved(head["env"], SECRETS), "OTEL_EXPORTER_OTLP_ENDPOINT": agent.url}
        done = subprocess.run(
            shlex.split(job["spec"]["entrypoint"].replace("/app/", "")),
            cwd=folder,
            env=environment(**variables),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("corpus: completed in ")
    assert agent.metrics["forge.sample.settled"]["pipeline.name=corpus, sample.outcome=ready"] == 1000
    pods = {resource["k8s.pod.name"] for resource in agent.resources}
    assert pods == {"greetings-7d9c"}
