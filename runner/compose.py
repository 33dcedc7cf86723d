"""Write docker-compose.yml from manifests: a service more is a manifest more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.manifest import Manifest
from runner.settings import config_name

HEAD = """\
# The whole platform: docker compose up
# Written by `nlp-runner compose` from manifests/*.yaml; a new service is there after the next one.
# Every ${VARIABLE:-default} can be set in .env or in the environment: docs/deploy.md. What else you
# change belongs into docker-compose.override.yml. Works with docker-compose 1.29 and Compose v2.

x-hardened: &hardened
  restart: unless-stopped
  security_opt: ["no-new-privileges:true"]
  cap_drop: [ALL]
  pids_limit: 512
  stop_grace_period: ${STOP_GRACE_PERIOD:-45s}
  logging: {driver: json-file, options: {max-size: 10m, max-file: "3"}}

x-ours: &ours
  <<: *hardened
  init: true
  env_file: .envdefault
  read_only: true
  tmpfs: [/tmp]

x-build: &build
  PYTHON_IMAGE: ${PYTHON_IMAGE:-python:3.11-slim}

x-settings: &settings
  NAMESPACE: ${NAMESPACE:-nlp}
  WIRE_SECRET: ${WIRE_SECRET:-change-me}
  SHUTDOWN_GRACE: ${SHUTDOWN_GRACE:-30}
  LOG_LEVEL: ${LOG_LEVEL:-info}
  LOG_FORMAT: ${LOG_FORMAT:-json}

services:
  postgres:
    <<: *hardened
    image: ${POSTGRES_IMAGE:-postgres:16-alpine}
    cap_add: [CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]
    mem_limit: ${POSTGRES_MEMORY:-1g}
    shm_size: 128m
    environment:
      POSTGRES_USER: nlp
      POSTGRES_DB: nlp
      POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:-change-me}
    volumes: [postgres:/var/lib/postgresql/data]
    networks: [inside]
    healthcheck:
      test: ["CMD-SHELL", "pg_isready -U nlp -d nlp"]
      interval: 5s
      timeout: 5s
      retries: 20

  redis:
    <<: *hardened
    image: ${REDIS_IMAGE:-redis:7-alpine}
    user: redis
    read_only: true
    tmpfs: [/tmp]
    mem_limit: ${REDIS_MEMORY:-1g}
    command: [sh, -c, 'echo "$$CONFIG" > /tmp/redis.conf && exec redis-server /tmp/redis.conf']
    environment:
      REDISCLI_AUTH: ${REDIS_PASSWORD:-change-me}
      # Each part has a user of its own, who may do what docs/deploy.md says, and no more. The
      # default user is off, but keeps its rights: Redis reads its append-only file in that name.
      CONFIG: |
        bind *
        protected-mode no
        dir /data
        appendonly yes
        maxmemory ${REDIS_MAXMEMORY:-700mb}
        maxmemory-policy noeviction
        user default off resetpass ~* &* +@all
@users@
    volumes: [redis:/data]
    networks: [inside]
    healthcheck:
      test: ["CMD-SHELL", "redis-cli --user admin ping | grep -q PONG"]
      interval: 5s
      timeout: 5s
      retries: 20

  orchestrator:
    <<: *ours
    image: ${IMAGES:-nlp-runner}/orchestrator:${TAG:-latest}
    build:
      context: .
      dockerfile: Dockerfile.base
      args: {<<: *build, SERVICE: orchestrator}
    depends_on:
      postgres: {condition: service_healthy}
      redis: {condition: service_healthy}
    scale: ${ORCHESTRATORS:-1}
    # On this machine only; a proxy that ends TLS, or HOST_ADDRESS=0.0.0.0 with AUTH=on, opens it.
    ports: ["${HOST_ADDRESS:-127.0.0.1}:${PORT:-8000}:8000"]
    mem_limit: ${ORCHESTRATOR_MEMORY:-1g}
    networks: [inside, outside]
    environment:
      <<: *settings
      HOST: 0.0.0.0
      PORT: 8000
      DATABASE_URL: ${DATABASE_URL:-postgresql://nlp@postgres:5432/nlp}
      PGPASSWORD: ${POSTGRES_PASSWORD:-change-me}
      SERVICES_BROKER: ${SERVICES_BROKER:-redis://orchestrator@redis:6379/0}
      BROKER_PASS: ${BROKER_PASS:-change-me}
      AUTH: ${AUTH:-off}
@orchestrator@
"""

SERVICE = """
  @name@:
    <<: *ours
    image: ${IMAGES:-nlp-runner}/@name@:${TAG:-latest}
    build:
      context: .
      dockerfile: Dockerfile.base
      args: {<<: *build, SERVICE: @name@@arguments@}
    depends_on:
      redis: {condition: service_healthy}
    scale: ${@NAME@_WORKERS:-1}
    mem_limit: ${@NAME@_MEMORY:-2g}
    networks: [inside]
    environment:
      <<: *settings
      SERVICE_MODE: worker
      SERVICES_BROKER: ${@NAME@_BROKER:-redis://worker-@name@@redis:6379/0}
      BROKER_PASS: ${@NAME@_BROKER_PASS:-change-me}
      CONCURRENCY: ${@NAME@_CONCURRENCY:-@concurrency@}
@settings@
"""

TAIL = """
  # docker compose --profile monitoring up
  prometheus:
    <<: *hardened
    image: ${PROMETHEUS_IMAGE:-prom/prometheus:v2.53.0}
    profiles: [monitoring]
    read_only: true
    tmpfs: [/tmp]
    mem_limit: 512m
    entrypoint: [sh, -c, 'echo "$$API_KEY" > /tmp/api_key && exec prometheus "$$@"', "-"]
    command:
      - --config.file=/etc/prometheus/prometheus.yml
      - --storage.tsdb.path=/prometheus
    environment:
      API_KEY: ${PROMETHEUS_API_KEY:-}
    ports: ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]
    volumes: ["./monitoring/prometheus:/etc/prometheus:ro", "prometheus:/prometheus"]
    networks: [inside, outside]

  grafana:
    <<: *hardened
    image: ${GRAFANA_IMAGE:-grafana/grafana:11.1.0}
    profiles: [monitoring]
    mem_limit: 512m
    ports: ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"]
    environment:
      GF_SECURITY_ADMIN_PASSWORD: ${GRAFANA_PASSWORD:-change-me}
      GF_USERS_ALLOW_SIGN_UP: "false"
      GF_ANALYTICS_REPORTING_ENABLED: "false"
    volumes: ["./monitoring/grafana:/etc/grafana/provisioning:ro", "grafana:/var/lib/grafana"]
    networks: [inside, outside]

networks:
  # Nothing gets in or out, unless Redis is elsewhere.
  inside: {internal: "${INSIDE_ONLY:-true}"}
  outside:

volumes:
  postgres:
  redis:
  prometheus:
  grafana:
"""

ORCHESTRATOR = "~nlp:* &nlp:* &/0.* +@all -@admin -@dangerous +info +client|setname"
WORKER = (
    "~nlp:q:{name}:* ~nlp:{name}:* ~nlp:_kombu.*q:{name}:* ~nlp:job:* ~nlp:lease:* ~nlp:live:* "
    "~nlp:results ~nlp:instance:{name}:* ~nlp:instances ~nlp:manifest:* &nlp:registry +@read "
    "+@write +@blocking +@transaction +@connection +@scripting +publish -@dangerous -@admin -scan "
    "-xread -xreadgroup -xgroup -xrange -xrevrange -xautoclaim -xclaim -xinfo +client|setname"
)
"""What the Redis users may do, in the namespace `nlp`."""

ORCHESTRATORS = (
    "MAX_WAIT", "RETENTION", "RESOLVE_POLICY", "WEBHOOK_SECRET", "WEBHOOK_ALLOW",
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS",
)  # fmt: skip
WORKERS = ("SERVICE_NAME", "MODEL_INFO", "QUEUE_NAME", "LANGUAGE")
"""Settings that are handed through; a worker's with its service's name before them."""


def compose_file(manifests: Sequence[Manifest]) -> str:
    """Return the text of docker-compose.yml for these services."""
    users = [
        _user("admin", "REDIS_PASSWORD", "~* &* +@all"),
        _user("orchestrator", "BROKER_PASS", f"resetchannels {ORCHESTRATOR}"),
    ]
    for manifest in manifests:
        secret = config_name(manifest.name, "broker_pass")
        users.append(_user(f"worker-{manifest.name}", secret, worker_rules(manifest)))
    types = sorted({manifest.type.upper() for manifest in manifests})
    defaults = (f"{kind}_DEFAULT" for kind in types)
    # The language of a desktop is in LANGUAGE, too: here it has the name that LinTO gave it.
    settings = _settings([*((name, name) for name in (*ORCHESTRATORS, *defaults)),
                          ("LANGUAGE", "APP_LANG")])  # fmt: skip
    head = HEAD.replace("@users@", "\n".join(users)).replace("@orchestrator@", settings)
    return head + "".join(map(_service, manifests)) + TAIL


def worker_rules(manifest: Manifest) -> str:
    """Return what a worker's user of Redis may do."""
    return f"resetchannels {WORKER.format(name=manifest.name)}"


def _service(manifest: Manifest) -> str:
    config = [config_name(manifest.name, key) for key in manifest.config]
    settings = _settings([
        *((name, config_name(manifest.name, name)) for name in WORKERS),
        *((name, name) for name in config),
    ])  # fmt: skip
    concurrency = str(manifest.limits.concurrency)
    text = SERVICE.replace("@arguments@", _arguments(manifest)).replace("@settings@", settings)
    text = text.replace("@name@", manifest.name).replace("@concurrency@", concurrency)
    return text.replace("@NAME@", manifest.name.upper().replace("-", "_"))


def _settings(names: Iterable[tuple[str, str]]) -> str:
    """Return the lines that hand variables into a container; what is empty counts as not said."""
    return "\n".join(f"      {inside}: ${{{outside}:-}}" for inside, outside in names)


def _user(name: str, secret: str, rules: str) -> str:
    """Return the line of a Redis user; its keys stand under the namespace."""
    rules = rules.replace("nlp:", "${NAMESPACE:-nlp}:")
    return f'        user {name} on ">${{{secret}:-change-me}}" {rules}'


def _arguments(manifest: Manifest) -> str:
    """Return what else a build may be told: spaCy pipelines, where the service uses spaCy."""
    uses = any(requirement.startswith("spacy") for requirement in manifest.requires)
    return ', SPACY_MODELS: "${SPACY_MODELS:-}"' if uses else ""
