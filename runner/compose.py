"""Write docker-compose.yml from manifests: a service more is a manifest more."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from runner.manifest import Manifest

HEAD = """\
# The whole platform: docker compose up --build
# Written by `nlp-runner compose` from manifests/*.yaml; a new service is there after the next one.
# Every ${VARIABLE:-default} can be set in .env or in the environment; other settings are those of
# .envdefault. Works with docker-compose 1.29 and with Compose v2.

x-hardened: &hardened
  restart: unless-stopped
  security_opt: ["no-new-privileges:true"]
  cap_drop: [ALL]
  pids_limit: 512
  stop_grace_period: 45s
  logging: {driver: json-file, options: {max-size: 10m, max-file: "3"}}

x-ours: &ours
  <<: *hardened
  init: true
  env_file: .envdefault
  read_only: true
  tmpfs: [/tmp]

x-worker: &worker
  SERVICE_MODE: worker
  NAMESPACE: ${NAMESPACE:-nlp}
  WIRE_SECRET: ${WIRE_SECRET:-change-me}
  LOG_LEVEL: ${LOG_LEVEL:-info}
  LOG_FORMAT: ${LOG_FORMAT:-json}

services:
  postgres:
    <<: *hardened
    image: postgres:16-alpine
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

"""

REDIS = """\
  # Each part has its own user: see docs/deploy.md.
  redis:
    <<: *hardened
    image: redis:7-alpine
    cap_add: [CHOWN, SETGID, SETUID]
    mem_limit: ${{REDIS_MEMORY:-1g}}
    command: >-
      redis-server --bind * --appendonly yes --maxmemory-policy noeviction
      --maxmemory ${{REDIS_MAXMEMORY:-700mb}}
{users}
    environment: {{REDISCLI_AUTH: "${{BROKER_PASS:-change-me}}"}}
    volumes: [redis:/data]
    networks: [inside]
    healthcheck:
      test: ["CMD-SHELL", "redis-cli --user orchestrator ping | grep -q PONG"]
      interval: 5s
      timeout: 5s
      retries: 20

  orchestrator:
    <<: *ours
    image: nlp-runner/orchestrator
    build: {{context: ., dockerfile: Dockerfile.base, args: {{SERVICE: orchestrator}}}}
    depends_on:
      postgres: {{condition: service_healthy}}
      redis: {{condition: service_healthy}}
    # On this machine only; a proxy that ends TLS, or HOST_ADDRESS=0.0.0.0 with AUTH=on, opens it.
    ports: ["${{HOST_ADDRESS:-127.0.0.1}}:${{PORT:-8000}}:8000"]
    mem_limit: ${{ORCHESTRATOR_MEMORY:-1g}}
    networks: [inside, outside]
    environment:
      HOST: 0.0.0.0
      PORT: 8000
      DATABASE_URL: ${{DATABASE_URL:-postgresql://nlp@postgres:5432/nlp}}
      PGPASSWORD: ${{POSTGRES_PASSWORD:-change-me}}
      SERVICES_BROKER: ${{SERVICES_BROKER:-redis://orchestrator@redis:6379/0}}
      BROKER_PASS: ${{BROKER_PASS:-change-me}}
      WIRE_SECRET: ${{WIRE_SECRET:-change-me}}
      NAMESPACE: ${{NAMESPACE:-nlp}}
      AUTH: ${{AUTH:-off}}
      RESOLVE_POLICY: ${{RESOLVE_POLICY:-any}}
      WEBHOOK_SECRET: ${{WEBHOOK_SECRET:-}}
      WEBHOOK_ALLOW: ${{WEBHOOK_ALLOW:-}}
      LOG_LEVEL: ${{LOG_LEVEL:-info}}
      LOG_FORMAT: ${{LOG_FORMAT:-json}}
"""

SERVICE = """\

  {name}:
    <<: *ours
    image: nlp-runner/{name}
    build: {{context: ., dockerfile: Dockerfile.base, args: {{SERVICE: {name}{arguments}}}}}
    depends_on:
      redis: {{condition: service_healthy}}
    mem_limit: ${{{variable}_MEMORY:-2g}}
    networks: [inside]
    environment:
      <<: *worker
      SERVICES_BROKER: ${{{variable}_BROKER:-redis://worker-{name}@redis:6379/0}}
      BROKER_PASS: ${{{variable}_BROKER_PASS:-change-me}}
      CONCURRENCY: ${{{variable}_CONCURRENCY:-{concurrency}}}
"""

TAIL = """
  # docker compose --profile monitoring up
  prometheus:
    <<: *hardened
    image: prom/prometheus:v2.53.0
    profiles: [monitoring]
    mem_limit: 512m
    ports: ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"]
    volumes: ["./monitoring/prometheus:/etc/prometheus:ro", "prometheus:/prometheus"]
    networks: [inside, outside]

  grafana:
    <<: *hardened
    image: grafana/grafana:11.1.0
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
  inside: {internal: true}
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
    "-xread -xreadgroup -xrange -xrevrange -xautoclaim -xclaim -xinfo +client|setname"
)
"""What the Redis users may do, in the namespace `nlp`."""


def compose_file(manifests: Sequence[Manifest]) -> str:
    """Return the text of docker-compose.yml for these services."""
    users = [_user("default", "", "")]
    users.append(_user("orchestrator", ">${BROKER_PASS:-change-me}", ORCHESTRATOR))
    for manifest in manifests:
        secret = f">${{{_variable(manifest)}_BROKER_PASS:-change-me}}"
        users.append(_user(f"worker-{manifest.name}", secret, WORKER.format(name=manifest.name)))
    services = [SERVICE.format(
        name=manifest.name, variable=_variable(manifest), arguments=_arguments(manifest),
        concurrency=manifest.limits.concurrency,
    ) for manifest in manifests]  # fmt: skip
    return HEAD + REDIS.format(users="\n".join(users)) + "".join(services) + TAIL


def _user(name: str, password: str, rules: str) -> str:
    """Return the option that gives Redis a user; its keys stand under the namespace."""
    rules = rules.replace("nlp:", "${NAMESPACE:-nlp}:")
    state = f"on {password} resetchannels" if rules else "off"
    return textwrap.fill(
        f"--user {name} {state} {rules}".rstrip(), 100, initial_indent=" " * 6,
        subsequent_indent=" " * 6, break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _variable(manifest: Manifest) -> str:
    return manifest.name.upper().replace("-", "_")


def _arguments(manifest: Manifest) -> str:
    """Return what else a build may be told: spaCy pipelines, where the service uses spaCy."""
    uses = any(requirement.startswith("spacy") for requirement in manifest.requires)
    return ', SPACY_MODELS: "${SPACY_MODELS:-}"' if uses else ""
