"""The recipe for Kubernetes: manifests that keep to its schemas, and the containers of their pods as processes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest
import yaml

from tests.stack.programs import Program, answers
from tests.support.collector import Collector, running_collector
from tests.support.ports import free_port
from tests.support.recipes import copy_files, environment
from tests.support.tools import tool
from tests.support.waiting import LONG

SCHEMA = json.loads((Path(__file__).parent / "kubernetes-1.37.json").read_text())
KINDS = {
    ("apps/v1", "DaemonSet"): "io.k8s.api.apps.v1.DaemonSet",
    ("apps/v1", "Deployment"): "io.k8s.api.apps.v1.Deployment",
    ("batch/v1", "CronJob"): "io.k8s.api.batch.v1.CronJob",
    ("v1", "ConfigMap"): "io.k8s.api.core.v1.ConfigMap",
}
WORKLOADS = ["cronjob", "deployment"]
SECRETS = {"otlp": {"authorization": "Bearer abc123"}}

FIELDS = {
    "metadata.name": "greetings-7d9c",
    "metadata.namespace": "ml",
    "metadata.uid": "0d2f5f1e",
    "metadata.labels['batch.kubernetes.io/job-name']": "nightly-29384",
    "spec.nodeName": "node-3",
    "status.hostIP": "192.0.2.7",
}
"""What the downward API says of the pod."""


def manifest(folder: Path, name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())
    return document


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    """The pod's specification in a workload's manifest."""
    spec = workload["spec"]
    template: dict[str, Any] = (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]
    pod: dict[str, Any] = template["spec"]
    return pod


def validate(document: object, definition: str) -> None:
    """Validate against a definition of Kubernetes."""
    schema = {"$ref": f"#/$defs/{definition}", "$defs": SCHEMA["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("name", ["otelcol", *WORKLOADS])
def test_manifests_keep_to_the_schemas(name: str, tmp_path: Path) -> None:
    copy_files("kubernetes", tmp_path)
    document = manifest(tmp_path, name)
    validate(document, KINDS[document["apiVersion"], document["kind"]])


def test_the_schemas_refuse_unknown_fields(tmp_path: Path) -> None:
    copy_files("kubernetes", tmp_path)
    document = manifest(tmp_path, "deployment")
    pod_of(document)["initContainers"][0]["startUpProbe"] = {}
    with pytest.raises(jsonschema.ValidationError, match="'startUpProbe' was unexpected"):
        validate(document, "io.k8s.api.apps.v1.Deployment")


def test_the_variables_for_an_agent_keep_to_the_schemas(tmp_path: Path) -> None:
    copy_files("kubernetes", tmp_path)
    variables = yaml.safe_load((tmp_path / "agent-env.yaml").read_text())
    for variable in variables:
        validate(variable, "io.k8s.api.core.v1.EnvVar")
    assert resolved(variables)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://192.0.2.7:4318"


@pytest.mark.parametrize("name", WORKLOADS)
def test_names_in_manifests_lead_somewhere(name: str, tmp_path: Path) -> None:
    """What the API server refuses beyond the schema, or waits for in vain."""
    copy_files("kubernetes", tmp_path)
    configuration, workload = manifest(tmp_path, "otelcol"), manifest(tmp_path, name)
    pod = pod_of(workload)
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod["volumes"]}
    assert volumes == {"otelcol": configuration["metadata"]["name"]}
    [sidecar], [container] = pod["initContainers"], pod["containers"]
    [mount] = sidecar["volumeMounts"]
    assert mount["name"] in volumes
    assert sidecar["args"] == [f"--config={mount['mountPath']}/{file}" for file in configuration["data"]]
    collector = yaml.safe_load(configuration["data"]["otelcol.yaml"])
    health, otlp = collector["extensions"]["health_check"], collector["receivers"]["otlp"]["protocols"]["http"]
    assert health["endpoint"] == f"0.0.0.0:{sidecar['startupProbe']['httpGet']['port']}"
    assert health["endpoint"] == f"0.0.0.0:{sidecar['livenessProbe']['httpGet']['port']}"
    assert resolved(container["env"])["OTEL_EXPORTER_OTLP_ENDPOINT"] == f"http://{otlp['endpoint']}"
    if name == "deployment":
        assert workload["spec"]["selector"]["matchLabels"] == workload["spec"]["template"]["metadata"]["labels"]
    else:
        rules = workload["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
        assert rules[0]["onExitCodes"]["containerName"] == container["name"]


def test_both_pods_have_the_same_collector(tmp_path: Path) -> None:
    copy_files("kubernetes", tmp_path)
    pods = [pod_of(manifest(tmp_path, name)) for name in WORKLOADS]
    assert pods[0]["initContainers"] == pods[1]["initContainers"]


def resolved(variables: list[dict[str, Any]], secrets: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, str]:
    """The variables of a container, as the kubelet sets them."""
    values: dict[str, str] = {}
    for variable in variables:
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            values[variable["name"]] = FIELDS[source["fieldRef"]["fieldPath"]]
        elif "secretKeyRef" in source:
            assert secrets is not None
            values[variable["name"]] = secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]]
        else:
            values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: values[match[1]], variable["value"])
    return values


class Pod(NamedTuple):
    """A pod whose sidecar runs."""

    spec: dict[str, Any]
    folder: Path
    port: int
    sidecar: Program
    backend: Collector

    def start(self) -> subprocess.Popen[str]:
        """Start the pipeline's container: the entry point of the image, with the arguments in the manifest."""
        [container] = self.spec["containers"]
        [entrypoint] = re.findall(r"^ENTRYPOINT (.+)$", (self.folder / "Dockerfile").read_text(), re.MULTILINE)
        variables = resolved(container["env"])
        address = variables["OTEL_EXPORTER_OTLP_ENDPOINT"].replace(":4318", f":{self.port}")
        return subprocess.Popen(
            [*json.loads(entrypoint), *container["args"]],
            cwd=self.folder,
            env=environment(**{**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": address}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def running_pod(folder: Path, workload: str) -> Iterator[Pod]:
    """Start the sidecar of a workload's pod on free ports, with a backend."""
    copy_files("kubernetes", folder)
    spec = pod_of(manifest(folder, workload))
    [sidecar] = spec["initContainers"]
    port, health = free_port(), free_port()
    settings = manifest(folder, "otelcol")["data"]["otelcol.yaml"]
    configuration = folder / "otelcol" / "otelcol.yaml"
    configuration.parent.mkdir()
    configuration.write_text(settings.replace(":4318", f":{port}").replace("0.0.0.0:13133", f"127.0.0.1:{health}"))
    with running_collector() as backend:
        secrets = {name: {**keys, "endpoint": backend.url} for name, keys in SECRETS.items()}
        arguments = [argument.replace("/etc/otelcol", str(configuration.parent)) for argument in sidecar["args"]]
        # Several tests at a time cannot all serve the Collector's own metrics on its usual port.
        command = [tool("otelcol-forge"), *arguments, "--config=yaml:service::telemetry::metrics::level: none"]
        program = Program("otelcol", command, folder / "sidecar", resolved(sidecar["env"], secrets))
        try:
            program.start(lambda: answers(f"http://127.0.0.1:{health}{sidecar['startupProbe']['httpGet']['path']}"))
            yield Pod(spec, folder, port, program, backend)
        finally:
            program.kill()


def test_the_collector_accepts_its_configuration(tmp_path: Path) -> None:
    copy_files("kubernetes", tmp_path)
    configuration = tmp_path / "collector-settings.yaml"
    configuration.write_text(manifest(tmp_path, "otelcol")["data"]["otelcol.yaml"])
    done = subprocess.run(
        [tool("otelcol-forge"), "validate", "--config", configuration],
        env=environment(OTLP_ENDPOINT="https://otlp.example.com", OTLP_AUTHORIZATION="Bearer abc123"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_job_ends_with_all_its_telemetry_at_the_backend(tmp_path: Path) -> None:
    with running_pod(tmp_path, "cronjob") as pod:
        pipeline = pod.start()
        output, _ = pipeline.communicate(timeout=LONG)
        assert pipeline.returncode == 0, output
        pod.sidecar.stop()
    assert output.startswith("nightly: completed in ")
    assert pod.backend.names == [
        "forge.pipeline nightly",
        "forge.sample",
        "forge.sample",
        "forge.stage shout",
        "forge.stage shout",
    ]
    assert pod.backend.metrics["forge.sample.settled"]["pipeline.name=nightly, sample.outcome=ready"] == 2
    assert "forge.pipeline.summary" in pod.backend.events
    assert pod.backend.headers["authorization"] == {"Bearer abc123"}
    [resource] = pod.backend.resources
    assert {name: value for name, value in resource.items() if name.startswith(("k8s.", "service.name"))} == {
        "service.name": "nightly",
        "k8s.namespace.name": "ml",
        "k8s.node.name": "node-3",
        "k8s.pod.name": "greetings-7d9c",
        "k8s.pod.uid": "0d2f5f1e",
        "k8s.cronjob.name": "nightly",
        "k8s.job.name": "nightly-29384",
        "k8s.container.name": "pipeline",
    }


@pytest.mark.slow
def test_a_terminated_service_leaves_no_telemetry_behind(tmp_path: Path) -> None:
    with running_pod(tmp_path, "deployment") as pod:
        pipeline = pod.start()
        pod.backend.wait_for_span("forge.sample")
        pipeline.send_signal(signal.SIGTERM)
        output, _ = pipeline.communicate(timeout=pod.spec["terminationGracePeriodSeconds"])
        assert (pipeline.returncode, output) == (-signal.SIGTERM, "")
        pod.sidecar.stop()
    [run] = [span for span in pod.backend.spans if span.name == "forge.pipeline service"]
    assert {each.key: each.value.string_value for each in run.attributes}["forge.run.outcome"] == "cancelled"
    samples = [span for span in pod.backend.spans if span.name == "forge.sample"]
    assert all(span.trace_id != run.trace_id for span in samples)
    settled = pod.backend.metrics["forge.sample.settled"]
    ready = settled["pipeline.name=service, sample.outcome=ready"]
    outcomes = [{each.key: each.value.string_value for each in span.attributes} for span in samples]
    assert sum(each["forge.sample.outcome"] == "ready" for each in outcomes) == ready > 0
    [resource] = pod.backend.resources
    assert resource["k8s.deployment.name"] == "service"
