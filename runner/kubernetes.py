"""Kubernetes resources from manifests: Deployments, probes, limits, budgets, policies, scaling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.manifest import Manifest
from runner.settings import config_name

JSON = dict[str, Any]

SECRET = "nlp-runner"
"""The Secret that the operator makes: BROKER_PASS, WIRE_SECRET, DATABASE_URL; NER_BROKER_PASS…"""

USER = 10001
GRACE = 30
"""Seconds that running jobs get at a stop; the pod gets fifteen more."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the resources will live: images, Redis and, for scaling, Prometheus.

    `images` is the prefix of every image's name. Without `prometheus` nothing is scaled by KEDA.
    With `users` each part is the user of Redis that docs/deploy.md gives it, with its own password.
    """

    images: str = "nlp-runner"
    tag: str = "latest"
    redis: str = "redis://redis:6379/0"
    prometheus: str = ""
    users: bool = False
    most: int = 10


def resources(manifests: Sequence[Manifest], cluster: Cluster) -> list[JSON]:
    """Return every resource, the orchestrator's first, without a single secret."""
    found = [_settings(cluster), *_orchestrator(cluster)]
    for manifest in manifests:
        found += _worker(manifest, cluster)
    return found


def _settings(cluster: Cluster) -> JSON:
    data = {
        "SERVICES_BROKER": cluster.redis,
        "NAMESPACE": "nlp",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
        "SHUTDOWN_GRACE": str(GRACE),
    }
    return {**_head("v1", "ConfigMap", "nlp-runner-settings", "settings"), "data": data}


def _orchestrator(cluster: Cluster) -> Iterator[JSON]:
    name = "orchestrator"
    ports = [{"name": "http", "containerPort": 8000}]
    probe = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5}
    container = {
        **_container(
            name,
            cluster,
            {"BROKER_PASS": "BROKER_PASS", "DATABASE_URL": "DATABASE_URL"},
            _user(cluster, name),
        ),
        "ports": ports,
        "readinessProbe": probe,
        "livenessProbe": {"httpGet": {"path": "/livez", "port": "http"}, "periodSeconds": 10},
        "startupProbe": {**probe, "failureThreshold": 60},
        "resources": _needs("250m", "256Mi", "1Gi"),
    }
    yield _deployment(name, 2, container)
    service = {"selector": _labels(name), "ports": [{"name": "http", "port": 80,
               "targetPort": "http"}]}  # fmt: skip
    yield {**_head("v1", "Service", name, name), "spec": service}
    yield _budget(name)
    ingress = [{"ports": [{"port": 8000, "protocol": "TCP"}]}]
    # To Redis, to PostgreSQL, and to the receivers of webhooks.
    yield _policy(name, ingress=ingress, egress=[{}])


def _worker(manifest: Manifest, cluster: Cluster) -> Iterator[JSON]:
    name = manifest.name
    alive = {"exec": {"command": ["nlp-runner", "health"]}, "timeoutSeconds": 10}
    started = int(manifest.limits.startup / 10) + 1
    secret = config_name(name, "broker_pass") if cluster.users else "BROKER_PASS"
    container = {
        **_container(
            name,
            cluster,
            {"BROKER_PASS": secret},
            {"SERVICE_MODE": "worker", **_user(cluster, f"worker-{name}")},
        ),
        "startupProbe": {**alive, "periodSeconds": 10, "failureThreshold": started},
        "readinessProbe": {**alive, "periodSeconds": 15},
        "livenessProbe": {**alive, "periodSeconds": 30, "failureThreshold": 4},
        "resources": _needs("500m", "512Mi", "2Gi"),
    }
    # What KEDA scales has no number of its own: it would be taken back at every apply.
    yield _deployment(name, None if cluster.prometheus else 1, container)
    yield _budget(name)
    port = int(cluster.redis.rpartition(":")[2].partition("/")[0] or 6379)
    dns = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    yield _policy(name, ingress=[], egress=[{"ports": [{"port": port, "protocol": "TCP"}, *dns]}])
    if cluster.prometheus:
        yield _scaling(name, cluster)


def _scaling(name: str, cluster: Cluster) -> JSON:
    """Scale on how long the oldest job has waited: a caller feels that, and not how many wait."""
    query = f'max(nlp_queue_oldest_age_seconds{{service="{name}"}})'
    trigger = {
        "type": "prometheus",
        "metadata": {"serverAddress": cluster.prometheus, "query": query, "threshold": "10"},
    }
    return {
        **_head("keda.sh/v1alpha1", "ScaledObject", name, name),
        "spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": 1,
            "maxReplicaCount": cluster.most,
            "cooldownPeriod": 300,
            "triggers": [trigger],
        },
    }


# --- parts ---------------------------------------------------------------------------------------


def _head(version: str, kind: str, name: str, component: str) -> JSON:
    metadata = {"name": name, "labels": _labels(component)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _labels(component: str) -> JSON:
    return {"app.kubernetes.io/part-of": "nlp-runner", "app.kubernetes.io/component": component}


def _deployment(name: str, replicas: int | None, container: JSON) -> JSON:
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE + 15,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    # A new version comes before an old one goes: a service is never without a worker.
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        **_head("apps/v1", "Deployment", name, name),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": _labels(name)},
            "strategy": rolling,
            "template": {"metadata": {"labels": _labels(name)}, "spec": pod},
        },
    }


def _user(cluster: Cluster, user: str) -> dict[str, str]:
    """Return what makes a part its own user of Redis, if there are such."""
    place = cluster.redis.partition("://")
    return {"SERVICES_BROKER": f"{place[0]}://{user}@{place[2]}"} if cluster.users else {}


def _container(
    name: str, cluster: Cluster, secrets: Mapping[str, str], values: Mapping[str, str]
) -> JSON:
    """Return a container; `secrets` says by which key of the Secret a variable is found."""
    env: list[JSON] = [{"name": key, "value": value} for key, value in values.items()]
    env += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}}
        for variable, key in {**secrets, "WIRE_SECRET": "WIRE_SECRET"}.items()
    ]
    return {
        "name": name,
        "image": f"{cluster.images}/{name}:{cluster.tag}",
        "envFrom": [{"configMapRef": {"name": "nlp-runner-settings"}}],
        "env": env,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _needs(cpu: str, memory: str, most: str) -> JSON:
    """Return requests and a limit of memory; a limit of CPU would only slow the answer down."""
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": most}}


def _budget(name: str) -> JSON:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels(name)}}
    return {**_head("policy/v1", "PodDisruptionBudget", name, name), "spec": spec}


def _policy(name: str, *, ingress: list[JSON], egress: list[JSON]) -> JSON:
    return {
        **_head("networking.k8s.io/v1", "NetworkPolicy", name, name),
        "spec": {
            "podSelector": {"matchLabels": _labels(name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }
