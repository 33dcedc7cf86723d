"""The files that start everything, written from manifests; and the question whether it lives."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from runner import pulse
from runner.cli import cli
from runner.compose import ORCHESTRATOR, WORKER, compose_file
from runner.embedded import free_port
from runner.errors import Unavailable
from runner.kubernetes import SECRET, Cluster, resources
from runner.manifest import load

HOUSE = Path(__file__).parents[1]
MANIFESTS = [load(path) for path in sorted((HOUSE / "manifests").glob("*.yaml"))]
NAMES = [manifest.name for manifest in MANIFESTS]


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """Give the committed compose file as Compose reads it."""
    found: dict[str, Any] = yaml.safe_load((HOUSE / "docker-compose.yml").read_text("utf-8"))
    return found


# --- compose -------------------------------------------------------------------------------------


def test_the_committed_compose_file_is_what_the_manifests_say() -> None:
    """Adding a service is a manifest, a handler and `nlp-runner compose`; nothing is forgotten."""
    assert (HOUSE / "docker-compose.yml").read_text("utf-8") == compose_file(MANIFESTS)


def test_every_service_is_there_and_hardened(composed: dict[str, Any]) -> None:
    """Each container drops all capabilities, cannot gain others, and is bounded."""
    services = composed["services"]
    assert set(NAMES) < set(services)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["stop_grace_period"] == "45s", name
    for name in (*NAMES, "orchestrator"):
        assert services[name]["read_only"] is True
        assert services[name]["init"] is True
    for name in (*NAMES, "redis", "postgres"):
        assert services[name]["networks"] == ["inside"]
        assert "ports" not in services[name]
    assert composed["networks"]["inside"] == {"internal": True}


def test_each_part_is_a_redis_user_of_its_own(composed: dict[str, Any]) -> None:
    """The default user is off, and every worker has a user, as docs/deploy.md shows them."""
    command = composed["services"]["redis"]["command"]
    users = re.findall(r"--user (\S+) (\S+)", command)
    assert users[0] == ("default", "off")
    assert [name for name, state in users[1:] if state == "on"] == [
        "orchestrator", *(f"worker-{name}" for name in NAMES),
    ]  # fmt: skip
    page = (HOUSE / "docs" / "deploy.md").read_text("utf-8")
    assert ORCHESTRATOR in page
    assert WORKER.format(name="SERVICE") in page
    for name in NAMES:
        broker = composed["services"][name]["environment"]["SERVICES_BROKER"]
        assert f"//worker-{name}@redis" in broker


def test_the_command_writes_prints_and_checks(tmp_path: Path, monkeypatch: Any) -> None:
    """`nlp-runner compose` writes the file, `-o -` prints it, `--check` says when it is stale."""
    monkeypatch.chdir(tmp_path)
    manifest = str(HOUSE / "manifests" / "ner.yaml")
    run = CliRunner().invoke
    assert run(cli, ["compose", "--check", manifest]).exit_code == 3
    assert run(cli, ["compose", manifest]).exit_code == 0
    assert run(cli, ["compose", "--check", manifest]).exit_code == 0
    printed = run(cli, ["compose", "-o", "-", manifest])
    assert printed.output == (tmp_path / "docker-compose.yml").read_text("utf-8")
    assert "worker-ner" in printed.output
    assert "topic-modeling" not in printed.output


# --- Kubernetes ----------------------------------------------------------------------------------


def test_the_resources_are_what_kubernetes_knows() -> None:
    """Every resource is valid for Kubernetes, strictly: no field that it would drop."""
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    found = resources(MANIFESTS, Cluster(prometheus="http://prometheus:9090"))
    for resource in found:
        if resource["kind"] != "ScaledObject":  # KEDA's own, which Kubernetes does not describe
            kubernetes_validate.validate(resource, version, strict=True)
    assert {r["metadata"]["name"] for r in found if r["kind"] == "Deployment"} == {
        "orchestrator", *NAMES,
    }  # fmt: skip
    assert sum(r["kind"] == "ScaledObject" for r in found) == len(NAMES)


def test_no_secret_is_written_and_no_pod_is_root() -> None:
    """Secrets are only named, and every container is read-only and without rights."""
    found = resources(MANIFESTS, Cluster())
    assert not any(r["kind"] in ("Secret", "ScaledObject") for r in found)
    for resource in found:
        if resource["kind"] == "Deployment":
            pod = resource["spec"]["template"]["spec"]
            [container] = pod["containers"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert container[probe]
            assert container["resources"]["limits"]["memory"]
            for variable in container["env"]:
                if variable["name"].isupper() and "valueFrom" in variable:
                    assert variable["valueFrom"]["secretKeyRef"]["name"] == SECRET


def test_the_command_writes_documents() -> None:
    """`nlp-runner kubernetes` prints one YAML document for each resource."""
    arguments = ["kubernetes", "--tag", "1.2", "--images", "registry.example/nlp",
                 str(HOUSE / "manifests" / "ner.yaml")]  # fmt: skip
    printed = CliRunner().invoke(cli, arguments)
    assert printed.exit_code == 0
    documents = list(yaml.safe_load_all(printed.output))
    images = [
        document["spec"]["template"]["spec"]["containers"][0]["image"]
        for document in documents
        if document["kind"] == "Deployment"
    ]
    assert images == ["registry.example/nlp/orchestrator:1.2", "registry.example/nlp/ner:1.2"]


# --- health --------------------------------------------------------------------------------------


def test_a_pulse_is_felt_while_it_is_fresh(tmp_path: Path) -> None:
    """A worker is healthy while its main process says ready, and not long after its last word."""
    with pytest.raises(Unavailable, match="sign of life"):
        pulse.feel(tmp_path)
    pulse.beat("starting", tmp_path)
    with pytest.raises(Unavailable, match="starting"):
        pulse.feel(tmp_path)
    pulse.beat("ready", tmp_path)
    assert pulse.feel(tmp_path) == "ready"
    with pytest.raises(Unavailable):
        pulse.feel(tmp_path, now=time.time() + pulse.FRESH + 1)
    (tmp_path / "nlp-runner-1.pulse").write_text("no JSON")
    (tmp_path / "nlp-runner-2.pulse").write_text(json.dumps({"at": "x"}))
    assert pulse.feel(tmp_path) == "ready"
    pulse.stop(tmp_path)
    with pytest.raises(Unavailable):
        pulse.feel(tmp_path)


def test_nobody_at_the_port_is_said() -> None:
    """`nlp-runner health` exits with 4 and a sentence where nothing answers."""
    asked = CliRunner().invoke(cli, ["health", "--port", str(free_port())])
    assert asked.exit_code == 4


# --- the images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["orchestrator", *NAMES])
def test_every_image_has_a_lock_with_hashes(name: str) -> None:
    """What an image installs is pinned and hashed, and says all that its manifest requires."""
    text = (HOUSE / "locks" / f"{name}.txt").read_text("utf-8")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==", text, re.M)
    assert len(pinned) == len(re.findall(r"== ?[^\\]+\\\n\s+--hash=sha256:", text))
    wanted = [requirement for m in MANIFESTS if m.name == name for requirement in m.requires]
    names = {re.split(r"[<>=!~\[ ;]", requirement)[0].lower() for requirement in wanted}
    assert names <= {one.lower().replace("_", "-") for one in pinned}
