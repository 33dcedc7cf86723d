"""From `module:name` in a manifest to something the engine can call."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from runner.context import Context
from runner.errors import HandlerInvalid, SettingInvalid, summary
from runner.manifest import Manifest
from runner.schema import Schema

MAX_WARNINGS, LONGEST_WARNING = 20, 500
"""What a handler may say about itself: sentences, and characters of each."""

NAMED, ANY_NAMED = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD


class Service(ABC):
    """The optional base class of a handler: set up once per process, called once per request.

    A class that does not inherit from it, or a plain function `run(ctx, **inputs)`, works too.
    """

    warnings: list[str]
    """What who runs the service should know, said by `__init__`: a fallback, a missing model."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Give each handler its own list, also where `__init__` does not call ours."""
        self = super().__new__(cls)
        self.warnings = []
        return self

    def __init__(self, config: SimpleNamespace) -> None:
        """Load what every request needs; `config` has the manifest's `config` as attributes."""
        self.config = config

    @abstractmethod
    def __call__(self, ctx: Context, **inputs: Any) -> Mapping[str, Any]:
        """Answer one request: the input's properties arrive as keyword arguments."""

    def close(self) -> None:
        """Give back what `__init__` took; called once when the process ends."""
        return None


class Handler:
    """A handler that is set up and ready to be called with a context and inputs."""

    def __init__(
        self,
        call: Callable[..., Any],
        config: SimpleNamespace,
        close: Callable[[], None],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self._call, self.config, self.close, self.warnings = call, config, close, warnings

    def __call__(self, ctx: Context, inputs: Mapping[str, Any]) -> Any:
        """Run the author's code on one request; a coroutine is driven to its end."""
        result = self._call(ctx, **inputs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result


def load(manifest: Manifest, overrides: Mapping[str, Any] | None = None) -> Handler:
    """Import, check and set up the handler of a manifest that was read from a file.

    Raises `HandlerInvalid` with the file, the line and the reason, whatever the author's code
    does while it is imported or set up, and `SettingInvalid` for a config value out of its schema.
    """
    config = configure(manifest, overrides or {})
    target = resolve(manifest)
    check_signature(manifest, target)
    if not inspect.isclass(target):
        return Handler(target, config, _nothing)
    build: Callable[..., Any] = target
    try:
        call = build(config)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        what = f"{manifest.handler} failed while it was set up"
        raise _authors(error, what, root_of(manifest)) from error
    return Handler(call, config, getattr(call, "close", _nothing), _warnings(manifest, call))


def _warnings(manifest: Manifest, call: object) -> tuple[str, ...]:
    """Return what the handler says after it was set up, within the bounds of an announcement."""
    said = getattr(call, "warnings", ())
    if not isinstance(said, list | tuple) or not all(isinstance(one, str) for one in said):
        raise HandlerInvalid(f"{manifest.handler}: `warnings` must be a list of strings.")
    return tuple(one[:LONGEST_WARNING] for one in said[:MAX_WARNINGS])


def configure(manifest: Manifest, overrides: Mapping[str, Any]) -> SimpleNamespace:
    """Return the manifest's config with the operator's values, each checked by its schema."""
    unknown = sorted(set(overrides) - set(manifest.config))
    if unknown:
        known = ", ".join(manifest.config) or "none"
        raise SettingInvalid(
            f"{manifest.name} has no config `{unknown[0]}`; its manifest declares {known}."
        )
    for key, value in overrides.items():
        problems = Schema(manifest.config[key]).problems(value)
        if problems:
            raise SettingInvalid(
                summary(problems, f"config `{key}` of {manifest.name}"), problems=problems
            )
    defaults = {key: schema["default"] for key, schema in manifest.config.items()}
    return SimpleNamespace(**deepcopy({**defaults, **overrides}))


def root_of(manifest: Manifest) -> Path:
    """Return the folder from which the handler's module is imported.

    It is the nearest one above the manifest that holds the module's first name as a folder or file.
    """
    assert manifest.path is not None, "a manifest announced by a worker is never imported"
    first = manifest.handler.partition(":")[0].partition(".")[0]
    for folder in manifest.path.parents:
        if (folder / first).is_dir() or (folder / f"{first}.py").is_file():
            return folder
    raise HandlerInvalid(
        f"{_place(manifest)}: there is no `{first}/` or `{first}.py` in {manifest.path.parent} or "
        f"any folder above it. Put the handler there, or correct `handler:`."
    )


def resolve(manifest: Manifest) -> Callable[..., Any]:
    """Import the module and return the class or function the manifest names."""
    root = root_of(manifest)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module_name, _, name = manifest.handler.partition(":")
    try:
        module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        raise _missing(error, manifest, root) from error
    except BaseException as error:
        raise _authors(error, f"{module_name} failed while it was imported", root) from error
    found = Path(getattr(module, "__file__", None) or root)
    if not (found.is_relative_to(root) or found.resolve().is_relative_to(root)):
        raise HandlerInvalid(
            f"{_place(manifest)}: `{module_name}` is not the one in {root}, because {found} has "
            f"the same name. Rename one of the two."
        )
    target: Any = getattr(module, name, None)
    if target is None:
        own = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"
               and getattr(v, "__module__", None) == module.__name__]  # fmt: skip
        raise HandlerInvalid(
            f"{_place(manifest)}: {module_name} has no `{name}`; it defines "
            f"{', '.join(own) or 'nothing to call'}. Correct `handler:`."
        )
    if not callable(target):
        raise HandlerInvalid(f"{_place(manifest)}: {manifest.handler} is not a class or function.")
    return target


def check_signature(manifest: Manifest, target: Callable[..., Any]) -> None:
    """Compare what the handler takes with what the manifest's input sends, before any request.

    Code that is written in C and does not say what it takes is trusted.
    """
    try:
        reason = _mismatch(manifest, target)
    except ValueError:
        return
    if reason:
        raise HandlerInvalid(f"{_place(manifest)}: {manifest.handler} {reason}.")


def _mismatch(manifest: Manifest, target: Callable[..., Any]) -> str | None:
    """Say why the handler cannot be called as the manifest promises, or None."""
    if inspect.isclass(target):
        call = next((vars(c)["__call__"] for c in target.__mro__ if "__call__" in vars(c)), None)
        if call is None or getattr(call, "__isabstractmethod__", False):
            return "has no `__call__` method"
        if not _takes_config(target):
            return "is set up with one argument; write `def __init__(self, config):`"
        parameters = list(inspect.signature(call).parameters.values())[1:]
    else:
        parameters = list(inspect.signature(target).parameters.values())
    if not parameters or parameters[0].kind in (NAMED, ANY_NAMED):
        return "must take the context first: `ctx`"
    sent = manifest.input["properties"]
    first, rest = parameters[0], parameters[1:]
    if first.name in sent:
        return f"takes `{first.name}` first, but the context comes first: write `ctx` before it"
    by_place = [p.name for p in rest if p.kind is p.POSITIONAL_ONLY]
    if by_place:
        return f"takes `{by_place[0]}` by its place only, but inputs arrive by name: drop the `/`"
    taken = {p.name: p for p in rest if p.kind not in (ANY_NAMED, p.VAR_POSITIONAL)}
    open_ended = any(p.kind is ANY_NAMED for p in rest)
    unknown = [name for name in sent if name not in taken and not open_ended]
    if unknown:
        takes = ", ".join(taken) or "nothing but the context"
        return f"does not take `{unknown[0]}`, which is in the input; it takes {takes}"
    always = set(manifest.input.get("required", ())) | {k for k, v in sent.items() if _defaulted(v)}
    needed = [n for n, p in taken.items() if p.default is p.empty and n not in always]
    if needed:
        why = "is optional in the input and has no default" if needed[0] in sent else ""
        return f"needs `{needed[0]}`, which {why or 'is not in the input'}"
    return None


def _takes_config(target: type) -> bool:
    try:
        inspect.signature(target).bind(None)
    except TypeError:
        return False
    return True


def _defaulted(schema: Any) -> bool:
    return isinstance(schema, dict) and "default" in schema


def _nothing() -> None:
    return None


def _place(manifest: Manifest) -> str:
    """Say where the manifest names its handler."""
    assert manifest.path is not None
    lines = manifest.path.read_text("utf-8", "replace").splitlines()
    number = next((i for i, line in enumerate(lines, 1) if line.startswith("handler:")), 1)
    return f"{_relative(manifest.path)}, line {number}"


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def place_of(error: BaseException, root: Path) -> tuple[Path, int] | None:
    """Return the file and line where an error left the author's code, the files below `root`.

    Without one it is the last place that is neither ours nor the import machinery's, if any.
    """
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        return Path(error.filename), error.lineno or 1
    ours = str(Path(__file__).parent)
    places = [
        (Path(frame.filename), frame.lineno or 1)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<"))
    ]
    below = [
        place
        for place in places
        if place[0].is_relative_to(root) and "site-packages" not in place[0].parts
    ]
    return next(reversed(below or places), None)


def _missing(error: ModuleNotFoundError, manifest: Manifest, root: Path) -> HandlerInvalid:
    """Tell a module that is not there from one that needs a module that is not there."""
    module_name = manifest.handler.partition(":")[0]
    gone = error.name or str(error)
    if f"{module_name}.".startswith(f"{gone}."):
        return HandlerInvalid(
            f"{_place(manifest)}: there is no module `{module_name}` in {root}. "
            f"Write it, or correct `handler:`."
        )
    if gone.partition(".")[0] == module_name.partition(".")[0]:
        return _authors(error, f"{module_name} failed while it was imported", root)
    return HandlerInvalid(
        f"{module_name} needs the module `{gone}`, which is not installed{_at(error, root)}. "
        f"Install this service's packages: pip install {' '.join(manifest.requires) or gone}"
    )


def _authors(error: BaseException, what: str, root: Path) -> HandlerInvalid:
    """Tell an author's own error with the place in the author's own file."""
    return HandlerInvalid(f"{what}: {type(error).__name__}: {error}{_at(error, root)}.")


def _at(error: BaseException, root: Path) -> str:
    place = place_of(error, root)
    return f" ({_relative(place[0])}, line {place[1]})" if place else ""
