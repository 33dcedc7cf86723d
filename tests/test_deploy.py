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

from runner import image, pulse
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
        assert service["stop_grace_period"] == "${STOP_GRACE_PERIOD:-45s}", name
    for name in (*NAMES, "orchestrator"):
        assert services[name]["read_only"] is True
        assert services[name]["init"] is True
    for name in (*NAMES, "redis", "postgres"):
        assert services[name]["networks"] == ["inside"]
        assert "ports" not in services[name]
    assert composed["networks"]["inside"] == {"internal": "${INSIDE_ONLY:-true}"}


def test_each_part_is_a_redis_user_of_its_own(composed: dict[str, Any]) -> None:
    """The default user is off, and every worker has a user, as docs/deploy.md shows them."""
    config = composed["services"]["redis"]["environment"]["CONFIG"]
    users = re.findall(r"^user (\S+) (\S+)", config, re.M)
    assert users[0] == ("default", "off")
    assert [name for name, state in users[1:] if state == "on"] == [
        "admin", "orchestrator", *(f"worker-{name}" for name in NAMES),
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
    first = run(cli, ["compose", manifest])
    assert (first.exit_code, first.output) == (0, "docker-compose.yml written.\n")
    assert run(cli, ["compose", "--check", manifest]).exit_code == 0
    printed = run(cli, ["compose", "-o", "-", manifest])
    assert printed.output == (tmp_path / "docker-compose.yml").read_text("utf-8")
    assert "worker-ner" in printed.output
    assert "topic-modeling" not in printed.output
    assert not re.search("@[a-zA-Z]+@", printed.output), "a place that was not filled in"
    more = run(cli, ["compose", manifest, str(HOUSE / "manifests" / "topic-modeling.yaml")])
    assert "topic-modeling is new. Choose TOPIC_MODELING_BROKER_PASS" in more.output
    assert f"on '>PASSWORD' resetchannels {WORKER.format(name='topic-modeling')}" in more.output
    assert "ner is new" not in more.output


def test_every_setting_of_a_part_can_be_set_from_outside(composed: dict[str, Any]) -> None:
    """What the commands in a container read is in .env's reach, but for where they listen."""
    inside = {"HOST", "PORT", "CONCURRENCY", "QUEUE_SIZE", "MANIFEST", "SERVICE_MODE", "API_KEY"}
    services = composed["services"]
    for name, command in (("orchestrator", cli.commands["orchestrator"]), ("ner", cli)):
        asked = {option.name for option in command.params if str(option.name).isupper()}
        handed = {key for key, value in services[name]["environment"].items() if "${" in str(value)}
        assert asked - inside <= handed, name
    assert {"NER_MODEL", "NER_EXPECTED", "CONCURRENCY"} <= set(services["ner"]["environment"])
    text = (HOUSE / "docker-compose.yml").read_text("utf-8")
    assert "${LANGUAGE" not in text, "a desktop's LANGUAGE would narrow the services"
    defaults = {m.type.upper() + "_DEFAULT" for m in MANIFESTS}
    assert defaults <= set(services["orchestrator"]["environment"])


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


def test_each_part_can_be_its_own_user_of_redis() -> None:
    """With --redis-users a worker has its name and its own key of the Secret, as with Compose."""
    for resource in resources(MANIFESTS, Cluster(users=True, prometheus="http://prometheus:9090")):
        if resource["kind"] == "Deployment":
            name = resource["metadata"]["name"]
            [container] = resource["spec"]["template"]["spec"]["containers"]
            env = {variable["name"]: variable for variable in container["env"]}
            user = name if name == "orchestrator" else f"worker-{name}"
            key = "" if name == "orchestrator" else name.upper().replace("-", "_") + "_"
            assert env["SERVICES_BROKER"]["value"] == f"redis://{user}@redis:6379/0"
            secret = env["BROKER_PASS"]["valueFrom"]["secretKeyRef"]
            assert secret == {"name": SECRET, "key": f"{key}BROKER_PASS"}
            # What KEDA scales has no number that an apply would take back.
            assert ("replicas" in resource["spec"]) == (name == "orchestrator")


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


def found(folder: Path) -> set[str]:
    """Return the files in a folder, without bytecode."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()
            and p.suffix != ".pyc"}  # fmt: skip


def test_an_image_holds_its_service_and_nothing_of_the_others(tmp_path: Path) -> None:
    """A handler comes with what handlers share, and without the handlers of other manifests."""
    made = CliRunner().invoke(cli, ["image", "ner", str(tmp_path / "ner")])
    assert made.exit_code == 0, made.output
    files = found(tmp_path / "ner")
    assert {"manifests/ner.yaml", "handlers/ner/__init__.py", "handlers/text/__init__.py"} <= files
    folders = {file.rpartition("/")[0].split("/model")[0] for file in files}
    assert folders == {"", "manifests", "handlers/ner", "handlers/text"}
    assert (tmp_path / "ner" / "requires").read_text() == "spacy>=3.8\npy3langid>=0.3\n"
    assert (tmp_path / "ner" / "packages").read_text() == ""
    start = tmp_path / "ner" / "start"
    assert start.read_text().splitlines()[-1] == (
        'exec nlp-runner --manifest manifests/ner.yaml "$@"'
    )
    assert start.stat().st_mode & 0o111 == 0o111
    assert list((tmp_path / "ner" / "handlers" / "ner").glob("__pycache__/*.pyc"))


def test_the_image_of_the_orchestrator_holds_no_service(tmp_path: Path) -> None:
    """It needs its starter only."""
    image.gather("orchestrator", HOUSE, tmp_path / "it")
    assert found(tmp_path / "it") == {"start", "requires", "packages"}
    assert "exec nlp-runner orchestrator" in (tmp_path / "it" / "start").read_text()


def test_a_handler_that_is_one_file_comes_alone(tmp_path: Path) -> None:
    """`word_count:run` needs no folder; a broken manifest stops nobody else's image."""
    house = tmp_path / "house"
    (house / "manifests").mkdir(parents=True)
    (house / "word_count.py").write_text("def run(ctx, **inputs): ...\n")
    (house / "other.py").write_text("")
    text = (HOUSE / "tests" / "gallery" / "echo.yaml").read_text("utf-8")
    text = re.sub("^handler: .*$", "handler: word_count:run", text, flags=re.M)
    (house / "manifests" / "word-count.yaml").write_text(text + "packages: [libgomp1]\n")
    (house / "manifests" / "broken.yaml").write_text("name: [")
    image.gather("word-count", house, tmp_path / "it")
    assert found(tmp_path / "it") == {
        "start", "requires", "packages", "manifests/word-count.yaml", "word_count.py",
    }  # fmt: skip
    assert (tmp_path / "it" / "packages").read_text() == "libgomp1\n"


@pytest.mark.parametrize("name", ["orchestrator", *NAMES])
def test_every_image_has_a_lock_with_hashes(name: str) -> None:
    """What an image installs is pinned and hashed, and says all that its manifest requires."""
    text = (HOUSE / "locks" / f"{name}.txt").read_text("utf-8")
    pinned = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==", text, re.M)
    assert len(pinned) == len(re.findall(r"== ?[^\\]+\\\n\s+--hash=sha256:", text))
    wanted = [requirement for m in MANIFESTS if m.name == name for requirement in m.requires]
    names = {re.split(r"[<>=!~\[ ;]", requirement)[0].lower() for requirement in wanted}
    assert names <= {one.lower().replace("_", "-") for one in pinned}
