"""What the house promises about itself: floors, libraries, sizes and names."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
RUNNER = HOUSE / "runner"

# A room imports rooms of lower floors only, and the libraries of its row. A library that stands in
# one row is known to that room alone. Rows for rooms that are not built yet may wait here.
FLOORS = {
    "errors": (0, ""),
    "events": (0, ""),
    "language": (0, "py3langid"),
    "logs": (0, ""),
    "memory": (0, ""),
    "payload": (0, "orjson"),
    "voice": (0, ""),
    "pulse": (1, ""),
    "connection": (0, "redis"),
    "seal": (0, ""),
    "signature": (0, ""),
    "stream": (0, "starlette orjson"),
    "targets": (0, ""),
    "traceparent": (0, ""),
    "transport": (0, "celery kombu"),
    "broker": (1, "celery kombu redis"),
    "client": (1, "httpx"),
    "components": (1, ""),
    "context": (1, ""),
    "crew": (1, ""),
    "egress": (1, "httpcore"),
    "embedded": (1, "redis"),
    "expression": (1, "jmespath"),
    "front": (1, "starlette"),
    "guard": (1, "uvicorn orjson"),
    "jsontext": (1, "orjson"),
    "linto_requests": (1, ""),
    "metrics": (1, "prometheus_client"),
    "parts": (1, "rich"),
    "scaffold": (1, ""),
    "schema": (1, "jsonschema_rs"),
    "terminal": (1, "rich"),
    "wire": (1, "redis"),
    "words": (1, ""),
    "http": (2, "starlette orjson"),
    "linto": (2, ""),
    "submit_paths": (2, ""),
    "paths": (3, ""),
    "linto_paths": (3, ""),
    "relocation": (2, ""),
    "security": (2, ""),
    "webhook_paths": (2, ""),
    "settings": (2, "dotenv"),
    "source": (2, "yaml"),
    "post": (3, ""),
    "watch": (2, "redis"),
    "manifest": (3, ""),
    "server": (3, "starlette uvicorn"),
    "handler": (4, ""),
    "narrowing": (4, ""),
    "openapi": (4, ""),
    "registry": (4, "redis orjson"),
    "command": (4, "click"),
    "compose": (4, ""),
    "image": (4, ""),
    "kubernetes": (4, ""),
    "up": (4, "rich"),
    "__init__": (5, ""),
    "deploy_commands": (5, "click httpx"),
    "engine": (5, "orjson"),
    "desk": (6, "orjson"),
    "testing": (6, ""),
    "child": (6, "redis"),
    "web": (7, "starlette orjson"),
    "worker": (7, "redis"),
    "author_commands": (8, "click"),
    "key_commands": (8, "click"),
    "cli": (9, "click"),
    "__main__": (10, ""),
}
# The wing, `runner/orchestrator/`, stands beside the web door and has floors of its own.
WING_FLOOR = 7
WING_FLOORS = {
    "__init__": (0, ""),
    "jobs": (0, ""),
    "parameters": (1, "starlette"),
    "catalog": (0, ""),
    "arrivals": (1, ""),
    "keys": (0, ""),
    "session": (0, "peewee playhouse psycopg2"),
    "trouble": (0, "peewee"),
    "wire": (0, "redis orjson"),
    "database": (1, "peewee"),
    "resource": (1, ""),
    "tables": (1, "peewee"),
    "rows": (2, ""),
    "keyring": (2, ""),
    "deliveries": (2, ""),
    "gate": (3, "starlette"),
    "terms": (4, "starlette"),
    "queries": (3, "peewee"),
    "changes": (3, "peewee"),
    "intake": (4, ""),
    "store": (5, ""),
    "callback": (6, "starlette"),
    "following": (6, "redis"),
    "admission": (7, ""),
    "composite": (8, "orjson"),
    "resolution": (1, ""),
    "dispatch": (8, "redis"),
    "repair": (9, ""),
    "picture": (1, ""),
    "figures": (9, ""),
    "spans": (4, ""),
    "traces": (9, "opentelemetry"),
    "webhooks": (9, ""),
    "deadlines": (9, ""),
    "retention": (9, ""),
    "dashboard": (10, "starlette"),
    "home": (7, ""),
    "life": (10, "redis"),
    "redelivery": (11, "starlette"),
    "routes": (11, "starlette redis"),
    "doors": (11, "starlette"),
    "bulk": (12, "starlette"),
    "retry": (12, "starlette"),
    "linto": (12, "starlette redis"),
    "app": (13, "starlette"),
}
# The orchestrator runs nobody's code, so it has no use for those who do.
CLOSED_TO_WING = {"__init__", "child", "context", "desk", "engine", "handler", "watch", "web"}
CLOSED_TO_WING |= {"testing", "worker"}

LONGEST = 320
BANNED = {"utils", "helpers", "common", "base", "core"}

ROOMS = sorted(RUNNER.rglob("*.py"))
TESTS = sorted((HOUSE / "tests").rglob("test_*.py"))


def in_house(path: Path) -> str:
    """Return a path as a reader of the repository knows it."""
    return str(path.relative_to(HOUSE))


def room_of(path: Path) -> str:
    """Return a room's name: `manifest`, or `orchestrator.jobs` in the wing."""
    return ".".join(path.relative_to(RUNNER).with_suffix("").parts)


def row(room: str) -> tuple[int, int, set[str]]:
    """Return a room's floor in the house, its floor in the wing, and its libraries."""
    wing, _, name = room.rpartition(".")
    floor, libraries = WING_FLOORS[name] if wing else FLOORS[name]
    return WING_FLOOR if wing else floor, floor if wing else -1, set(libraries.split())


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every import with its line, wherever it stands: `runner` ones as `runner.<room>`."""
    names = {room_of(path) for path in ROOMS}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                deeper = f"{module}.{alias.name}"
                yield node.lineno, deeper if deeper.removeprefix("runner.") in names else module


def offences(room: str, source: str) -> Iterator[str]:
    """Say which imports of a room break the table, each with its line."""
    floor, inner, libraries = row(room)
    for line, name in imports(ast.parse(source)):
        first, _, rest = name.partition(".")
        if first == "runner":
            target = rest or "__init__"
            other, other_inner, _ = row(target)
            together = inner >= 0 and other_inner >= 0
            if not (other_inner < inner if together else other < floor):
                yield f"line {line}: {room} is not above {target}"
            if inner >= 0 and target in CLOSED_TO_WING:
                yield f"line {line}: the wing is closed to {target}"
        elif first not in sys.stdlib_module_names and first not in libraries:
            yield f"line {line}: {room} does not know {first or 'relative imports'}"


def test_every_room_has_its_row():
    """A new room gets a floor and its libraries before anything else."""
    for path in ROOMS:
        try:
            row(room_of(path))
        except KeyError:
            pytest.fail(f"{in_house(path)} has no row in the table above")


def test_rooms_import_downwards():
    """Every room imports rooms of lower floors and its own libraries, and nothing else."""
    found = [
        f"{in_house(path)}, {offence}"
        for path in ROOMS
        for offence in offences(room_of(path), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("room", "source", "offence"),
    [
        ("schema", "import os\nimport runner.web", "line 2: schema is not above web"),
        ("schema", "def f():\n    import runner.schema", "line 2: schema is not above schema"),
        ("schema", "import yaml", "line 1: schema does not know yaml"),
        ("schema", "from . import errors", "line 1: schema does not know relative imports"),
        ("schema", "from runner import Service", "line 1: schema is not above __init__"),
        ("web", "import runner.orchestrator.jobs", "line 1: web is not above orchestrator.jobs"),
        ("orchestrator.jobs", "from runner.orchestrator import store",
         "line 1: orchestrator.jobs is not above orchestrator.store"),
        ("orchestrator.app", "from runner.engine import Engine", "line 1: the wing is closed to"),
    ],
)  # fmt: skip
def test_an_offence_is_named_with_its_line(room, source, offence):
    """The table is enforced: whoever breaks it reads where."""
    assert next(offences(room, source)).startswith(offence)


def test_the_orchestrator_runs_nobodys_code():
    """A process that has loaded the whole orchestrator has loaded nothing that runs a handler."""
    code = (
        "import sys, runner.orchestrator.app\n"
        "print(*[m for m in ('engine', 'web', 'worker') if f'runner.{m}' in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []


def test_rooms_are_small():
    """A room is read in one sitting."""
    lengths = {path: path.read_text("utf-8").count("\n") for path in ROOMS}
    found = [f"{in_house(p)} has {n} lines" for p, n in lengths.items() if n > LONGEST]
    assert not found, "\n".join(found)


def test_rooms_are_named_by_what_they_hold():
    """Nothing is called by a name under which anything could be put."""
    places = [p for part in ("runner", "handlers", "tests") for p in (HOUSE / part).rglob("*")]
    assert [
        in_house(p) for p in places if BANNED & {p.name, p.stem, p.stem.removeprefix("test_")}
    ] == []


def test_every_room_opens_with_a_sentence():
    """The first line of a room says what it is for."""
    for path in ROOMS:
        words = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        assert words.partition("\n\n")[0].endswith("."), in_house(path)


def test_no_room_keeps_secrets_in_globals():
    """What lives between calls lives in an object that somebody holds."""
    for path in ROOMS:
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        assert not any(isinstance(node, ast.Global) for node in nodes), in_house(path)


def test_every_test_opens_with_a_promise():
    """A test that fails says in a sentence which promise is broken."""
    silent = [
        f"{in_house(path)}, line {node.lineno}: {node.name}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not (ast.get_docstring(node) or "").endswith(".")
    ]
    assert not silent, "\n".join(silent)


def test_tests_neither_sleep_nor_patch():
    """Tests pass clocks and real things, so that they are fast and true."""
    words = ("time" + ".sleep", "monkeypatch" + ".set", "unittest" + ".mock")
    found = [f"{in_house(p)}: {w}" for p in TESTS for w in words if w in p.read_text("utf-8")]
    assert not found, "\n".join(found)
