"""What `runner.handler` promises to authors, above all to those who made a mistake."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.context import Context
from runner.errors import HandlerInvalid, SettingInvalid
from runner.handler import Service, check_signature, configure, load, resolve, root_of
from runner.manifest import Manifest
from runner.manifest import load as load_manifest

GALLERY = Path(__file__).parent / "gallery"

MANIFEST = """\
apiVersion: nlp-runner/v1
name: test
version: 1.0.0
summary: A test.
handler: {handler}
config:
  mode: {{enum: [fast, good], default: good}}
  tags: {{type: array, default: []}}
input:
  type: object
  required: [text]
  properties:
    text: {{type: string}}
    top: {{type: integer, default: 3}}
    hint: {{type: string}}
output: {{type: object}}
"""
numbers = itertools.count()


class Author:
    """Somebody who writes services in a folder, each under a module name of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def writes(self, code: str, name: str = "run") -> Manifest:
        """Write a module and a manifest that names something in it."""
        self.module = f"written_{next(numbers)}"
        self.file = self.folder / f"{self.module}.py"
        self.file.write_text(code, "utf-8")
        return self.names(f"{self.module}:{name}")

    def names(self, handler: str) -> Manifest:
        """Write a manifest that names a handler."""
        path = self.folder / "test.yaml"
        path.write_text(MANIFEST.format(handler=handler), "utf-8")
        return load_manifest(path)


@pytest.fixture
def author(tmp_path: Path) -> Author:
    """An author with an empty folder."""
    return Author(tmp_path)


def call(manifest: Manifest, **inputs: object) -> object:
    """Set a handler up and call it once."""
    ctx = Context(job_id="j", service="test", steps=(), emit=lambda event: None)
    return load(manifest)(ctx, inputs)


@pytest.mark.parametrize(
    ("stem", "answer"), [("echo", "ab"), ("function_form", "AB"), ("async_form", "ab")]
)
def test_a_handler_has_the_form_its_author_likes(stem, answer):
    """A class, a function and a coroutine are handlers alike."""
    inputs = {"text": "ab", **({"reverse": False} if stem == "echo" else {})}
    assert call(load_manifest(GALLERY / f"{stem}.yaml"), **inputs) == {"text": answer}


def test_a_handler_may_be_ready_made(author):
    """An object that can be called is a handler too, and is not set up again."""
    code = (
        "class T:\n    def __call__(self, ctx, text, top, hint=''): return {'t': text}\nrun = T()\n"
    )
    assert call(author.writes(code), text="a", top=1) == {"t": "a"}


def test_a_class_is_set_up_once_and_closed():
    """The handler keeps what it loaded, and gives it back at the end."""
    handler = load(load_manifest(GALLERY / "echo.yaml"))
    assert handler.close() is None
    assert isinstance(handler.config, SimpleNamespace)


def test_a_service_must_answer():
    """The base class says at once which method is missing."""
    with pytest.raises(TypeError, match="__call__"):
        Service(SimpleNamespace())


def test_a_handler_is_found_above_its_manifest(author):
    """The nearest folder above the manifest that holds the module is the root."""
    assert root_of(load_manifest(GALLERY / "echo.yaml")) == GALLERY.parent
    assert root_of(author.writes("def run(ctx, **inputs): ...")) == author.folder.resolve()


def refusal(manifest: Manifest) -> str:
    """Return the sentence with which a handler is refused."""
    with pytest.raises(HandlerInvalid) as caught:
        load(manifest)
    return caught.value.detail


def test_a_missing_root_is_told_with_the_line_of_the_manifest(author):
    """A module in no folder above is told where it is named, and where it was looked for."""
    sentence = refusal(author.names("nowhere_at_all.mine:run"))
    assert sentence.startswith(f"{author.folder.resolve() / 'test.yaml'}, line 5: there is no")
    assert "`nowhere_at_all/` or `nowhere_at_all.py`" in sentence


def test_a_missing_module_is_told(author):
    """A misspelled module in a folder that exists is told with that folder."""
    (author.folder / "folder_of_mine").mkdir()
    sentence = refusal(author.names("folder_of_mine.nothing:run"))
    assert "line 5: there is no module `folder_of_mine.nothing` in" in sentence


def test_a_missing_name_is_told_with_those_that_exist(author):
    """A misspelled class is told with what its module defines."""
    manifest = author.writes("from pathlib import Path\ndef runs(ctx): ...\nclass Run: ...\n")
    assert f"line 5: {author.module} has no `run`; it defines runs, Run." in refusal(manifest)


def test_a_missing_package_is_told_with_its_remedy(author):
    """An import that is not installed is told with the author's line and the command to type."""
    sentence = refusal(author.writes("import os\nimport notinstalledatall.deep\n"))
    assert "needs the module `notinstalledatall`" in sentence
    assert f"{author.file.name}, line 2)" in sentence
    assert sentence.endswith("pip install notinstalledatall")


def test_a_package_of_a_similar_name_is_not_the_module(author):
    """A missing package whose name begins like the module's is not mistaken for it."""
    author.writes("import written_\n")
    assert "needs the module `written_`, which is not installed" in refusal(
        author.names(f"{author.module}:run")
    )


@pytest.mark.parametrize(
    ("code", "line", "words"),
    [
        ("\nx = 1 / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def run(ctx:\n    pass\n", 1, "SyntaxError"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
        ("import ast\nast.literal_eval('1 +')\n", 2, "SyntaxError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("from runner import Nothing\n", 1, "ImportError: cannot import name 'Nothing'"),
        ("class Odd(BaseException): ...\n\n\nraise Odd('no')\n", 4, "Odd: no"),
    ],
)
def test_an_error_at_import_names_the_authors_line(author, code, line, words):
    """Whatever a module raises, the sentence names the author's file and line, not a library's."""
    sentence = refusal(author.writes(code))
    assert sentence.startswith(f"{author.module} failed while it was imported: {words}")
    assert sentence.endswith(f"{author.file.resolve()}, line {line}).")


def test_an_error_in_setup_names_the_authors_line():
    """Whatever a class raises while it is set up is told like an error at import."""
    sentence = refusal(load_manifest(GALLERY / "fails_in_setup.yaml"))
    assert "gallery.fails_in_setup:Broken failed while it was set up: FileNotFound" in sentence
    assert "fails_in_setup.py, line 13)." in sentence


def test_a_module_of_the_same_name_elsewhere_is_not_mistaken(author):
    """A folder that is named like a module of the system is told instead of imported."""
    (author.folder / "json").mkdir()
    sentence = refusal(author.names("json.decoder:JSONDecoder"))
    assert "`json.decoder` is not the one in" in sentence
    assert "Rename one of the two." in sentence


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def run(): ...", "must take the context first"),
        ("def run(**inputs): ...", "must take the context first"),
        ("def run(*, ctx, text, top, hint=''): ...", "must take the context first"),
        ("def run(text, top, hint=''): ...", "takes `text` first, but the context comes first"),
        ("def run(ctx, text, top): ...", "does not take `hint`, which is in the input; it takes t"),
        ("def run(ctx): ...", "it takes nothing but the context"),
        ("def run(ctx, text, top, hint): ...", "needs `hint`, which is optional in the input"),
        ("def run(ctx, text, top, new, hint=''): ...", "needs `new`, which is not in the input"),
        ("def run(ctx, text, /, top, hint=''): ...", "takes `text` by its place only"),
        ("class run:\n    def __init__(self, config): ...", "has no `__call__` method"),
        ("from runner import Service\nclass run(Service): ...", "has no `__call__` method"),
        ("class run:\n    def __call__(self, ctx): ...", "write `def __init__(self, config):`"),
        ("class run:\n    def __init__(self, c): ...\n    def __call__(self): ...",
         "must take the context first"),
    ],
)  # fmt: skip
def test_a_signature_that_does_not_fit_is_told_before_any_request(author, code, words):
    """Handler and manifest are compared when they are loaded, and the manifest's line is named."""
    sentence = refusal(author.writes(code))
    assert sentence.startswith(f"{author.folder.resolve() / 'test.yaml'}, line 5: {author.module}")
    assert words in sentence


@pytest.mark.parametrize(
    "code",
    [
        "def run(ctx, text, top, hint=''): ...",
        "def run(ctx, *, text, top=3, hint=None): ...",
        "def run(ctx, **inputs): ...",
        "def run(*everything, **inputs): ...",
        "def run(_, text, **rest): ...",
        "async def run(ctx, text, top, hint='', more=1): ...",
        "from functools import partial\ndef f(a, ctx, **i): ...\nrun = partial(f, 1)",
        "class run(dict):\n    def __call__(self, ctx, **inputs): ...",
    ],
)
def test_a_signature_that_fits_is_left_alone(author, code):
    """Every way to take the inputs by name is fine."""
    manifest = author.writes(code)
    check_signature(manifest, resolve(manifest))


def test_a_constant_is_no_handler(author):
    """A name that cannot be called is told."""
    assert "is not a class or function" in refusal(author.writes("run = 5\n"))


def test_config_has_its_defaults_and_the_operators_choices(author):
    """An operator's value replaces the manifest's default."""
    manifest = author.writes("def run(ctx, **inputs): ...")
    assert configure(manifest, {}) == SimpleNamespace(mode="good", tags=[])
    assert load(manifest, {"mode": "fast"}).config.mode == "fast"


def test_a_handler_cannot_change_its_manifest(author):
    """A default that a handler changes is fresh for the next one."""
    manifest = author.writes("def run(ctx, **inputs): ...")
    configure(manifest, {}).tags.append("mine")
    assert configure(manifest, {}).tags == []


def test_a_wrong_config_is_a_wrong_setting(author):
    """A value out of its schema, or an unknown key, is told without repeating the value."""
    manifest = author.writes("def run(ctx, **inputs): ...")
    with pytest.raises(SettingInvalid, match=r"Config `mode` of test is not.*fast or good"):
        configure(manifest, {"mode": "secret"})
    with pytest.raises(SettingInvalid, match="has no config `modes`; its manifest declares mode"):
        configure(manifest, {"modes": "fast"})


# --- what a handler says about itself ------------------------------------------------------------


def test_a_handler_may_warn(author):
    """What `__init__` puts into `warnings` is heard, within bounds; a function says nothing."""
    code = "class H:\n    def __init__(self, config):\n        self.warnings = ['w' * 900] * 30\n"
    taking = "    def __call__(self, ctx, text, top, hint=None):\n        return {}\n"
    assert load(author.writes(code + taking, "H")).warnings == ("w" * 500,) * 20
    plain = "def run(ctx, text, top, hint=None):\n    return {}\n"
    assert load(author.writes(plain)).warnings == ()


def test_no_two_services_share_their_warnings(author):
    """Each instance of `Service` has a list of its own, also without `super().__init__()`."""

    class Quiet(Service):
        def __init__(self, config):
            pass

        def __call__(self, ctx):
            return {}

    first, second = Quiet(None), Quiet(None)
    first.warnings.append("mine")
    assert (first.warnings, second.warnings) == (["mine"], [])


@pytest.mark.parametrize("said", ["'one'", "[1]", "{'a': 1}", "None"])
def test_warnings_are_a_list_of_sentences(author, said):
    """Anything else is the author's mistake, told when the handler is loaded."""
    code = f"class H:\n    def __init__(self, config):\n        self.warnings = {said}\n"
    taking = "    def __call__(self, ctx, text, top, hint=None):\n        return {}\n"
    with pytest.raises(HandlerInvalid, match="`warnings` must be a list of strings"):
        load(author.writes(code + taking, "H"))
