"""What `runner.source` promises about the YAML it reads."""

import subprocess
import sys

import pytest

from runner.errors import Problem
from runner.source import MAX_BYTES, SourceInvalid, beyond_bounds, read


def refusal(data: str | bytes) -> Problem:
    """Return why a file is refused."""
    with pytest.raises(SourceInvalid) as caught:
        read(data.encode() if isinstance(data, str) else data, "a.yaml")
    assert caught.value.problem.file == "a.yaml"
    return caught.value.problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("False", False),
        ("2024-01-01", "2024-01-01"),
        ("12:30:45", "12:30:45"),
        ("1.0.0", "1.0.0"),
        ("1_000", "1_000"),
        ("0x1f", "0x1f"),
        ("007", 7),
        ("-12", -12),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1e999", "1e999"),
        (".nan", ".nan"),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text, value):
    """The language code `no` is a string, and so are dates, versions and times."""
    found = read(f"a: {text}".encode(), "a.yaml").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_always_strings():
    """A key such as `no` or `1` is that word, whatever it looks like."""
    assert read(b"no: 1\n1: 2\ntrue: 3\nnull: 4", "a").value == {
        "no": 1, "1": 2, "true": 3, "null": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: &x 1\nb: *x", 1, "anchor"),
        ("b: 1\na: *x", 2, "alias"),
        ("&x a: 1", 1, "anchor"),
        ("b: 1\n<<: {a: 1}", 2, "merge"),
        ("a: 1\nb: 2\na: 3", 3, "`a` a second time"),
        ("a:\n  b: 1\n  b: 2", 3, "`b` a second time"),
        ("a: !!python/object/apply:os.system [ls]", 1, "tag"),
        ("b: 1\na: !mine x", 2, "tag"),
        ("!!str a: 1", 1, "tag"),
        ("a: 1\n---\nb: 2", 2, "second document"),
        ("? [a]\n: 1", 1, "plain word"),
        ("? {a: 1}\n: 1", 1, "plain word"),
        ("a: 1\nb: [1, 2\nc: 3", 3, "not YAML"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("b: 1\na: \x00", 2, "not YAML"),
        ('a: "\\0"', 1, "character"),
        ('a: "\\ud800"', 1, "character"),
    ],
)
def test_what_is_not_read_is_refused_with_its_line(text, line, word):
    """An author learns the line of whatever this reader does not read."""
    problem = refusal(text)
    assert problem.line == line
    assert word in problem.message


def test_bytes_that_are_no_text_are_refused():
    """A file of another encoding is refused with its line."""
    assert "not YAML" in refusal(b"b: 1\na: \xff\xfe").message


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"[" * 5000, "deeper"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "deeper"),
        (b"{a: " * 5000, "deeper"),
        (b"- " * 5000, "deeper"),
        (b"[" + b"1," * 100_000 + b"]", "more than 10000 values"),
        (b"{" + b"".join(b"k%d: 1, " % i for i in range(20_000)) + b"}", "larger|more than"),
        (b"a: " + b"9" * MAX_BYTES, "larger"),
    ],
    ids=["list", "closed-list", "mapping", "dashes", "wide", "keys", "long"],
)
def test_bombs_are_refused_before_they_grow(data, word):
    """Files that are too deep, too wide or too long are refused, and crash nothing."""
    assert any(part in refusal(data).message for part in word.split("|"))


def test_a_bomb_of_aliases_stays_small():
    """The billion laughs never unfold: the first anchor ends the reading."""
    laughs = "a0: &a0 [ha, ha]\n"
    laughs += "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, 30))
    assert refusal(laughs).line == 1


def test_the_line_of_every_place_is_known():
    """A problem is located at its own line, or at the nearest place above that exists."""
    source = read(b"# remark\na:\n  b: 1\n  c:\n    - x\n    - y: 2\n", "a.yaml")
    places = ("/a/b", "/a/c/1/y", "/a/c/0", "/a/missing", "/zzz", "")
    located = [source.locate(Problem(place, "x", "is wrong")) for place in places]
    assert [problem.line for problem in located] == [3, 6, 5, 2, 2, 2]
    assert str(located[0]) == "a.yaml, line 3: `/a/b` is wrong"


def test_an_empty_file_is_nothing():
    """A file of remarks only has no value; what that means is for others to say."""
    assert read(b"", "a").value is None
    assert read(b"# nothing\n", "a").value is None


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"---\n", b"%YAML 1.2\n---\n", b"\r\n"])
def test_usual_beginnings_are_read(start):
    """A byte order mark, a document start, a directive or a blank line disturb nothing."""
    assert read(start + b"a: 1\r\nb: 2\n", "a").value == {"a": 1, "b": 2}


def test_the_reader_without_libyaml_agrees():
    """Where the C parser is missing, the slow one reads and refuses the same."""
    code = (
        "import yaml; del yaml.CSafeLoader\n"
        "from runner.source import *\n"
        "assert read(b\"a: no\\nb: ''\\nc: '1'\\nd:\", 'a').value == "
        "{'a': 'no', 'b': '', 'c': '1', 'd': None}\n"
        "for bad in (b'[' * 5000, b'a: &x 1', b'a: !x 1', b'a: 1\\na: 2', b'a: \"\\\\ud800\"'):\n"
        "    try: read(bad, 'a')\n"
        "    except SourceInvalid: continue\n"
        "    raise SystemExit(repr(bad))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_values_from_elsewhere_have_the_same_bounds():
    """A document that came over the network is measured like a file."""
    deep: object = 1
    for _ in range(30):
        deep = [deep]
    assert beyond_bounds({"a": [1, {"b": "c"}]}) is None
    for value in (deep, [0] * 20_000, {"a": "\ud800"}, {"\x00": 1}):
        assert beyond_bounds(value) is not None
