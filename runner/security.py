"""What an OpenAPI document says of keys: how they are sent, and which scope opens what."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner import errors
from runner.components import JSON, problems

SCHEMES: JSON = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A key that `nlp-runner keys create` has made.",
    },
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key.",
    },
}


def secured(document: JSON, scopes: Mapping[tuple[str, str], str]) -> JSON:
    """Return a document whose operations name the scope they need.

    `scopes` are those of the routes, by (method, path template); `open` asks for no key. What has
    none is said to need `admin`, because that is how it is.
    """
    paths = {path: _path(path, item, scopes) for path, item in document["paths"].items()}
    components = {**document["components"], "securitySchemes": SCHEMES}
    return {**document, "paths": paths, "components": components}


def _path(path: str, item: JSON, scopes: Mapping[tuple[str, str], str]) -> JSON:
    return {
        name: _operation(value, _scope(name, path, scopes)) if name in METHODS else value
        for name, value in item.items()
    }


METHODS = frozenset({"get", "post", "put", "patch", "delete"})


def _operation(operation: JSON, scope: str) -> JSON:
    if scope == "open":
        return {**operation, "security": []}
    refused = problems(errors.Unauthenticated, errors.Forbidden)
    return {
        **operation,
        "security": [{name: [scope]} for name in SCHEMES],
        "responses": {**operation["responses"], **refused},
    }


def _scope(method: str, path: str, scopes: Mapping[tuple[str, str], str]) -> str:
    """Return the scope of the route that answers a path, which may name a service."""
    for (verb, template), scope in scopes.items():
        if verb == method.upper() and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            return scope
    return "admin"
