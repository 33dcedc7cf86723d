"""What `runner.schema` promises to whoever validates a value or writes a schema."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runner.schema import MAX_PROBLEMS, MAX_SURVEYED, Schema, closed, pointer, schema_problems

DOCUMENTS = {
    "type": "object",
    "required": ["documents"],
    "properties": {
        "documents": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 9}},
        "top": {"type": "integer", "minimum": 1, "default": 10},
        "mode": {"enum": ["fast", "good"]},
    },
}
SECRET = "the patient is called Ada"


def test_a_right_value_has_no_problems():
    """What keeps the schema passes."""
    assert Schema(DOCUMENTS).problems({"documents": ["a"], "top": 3, "mode": "fast"}) == []


def test_every_problem_is_told_at_once_with_its_place():
    """A caller learns in one answer what is wrong everywhere, in the order a reader counts."""
    value = {"documents": ["a", 1, "ok", "much too long"], "top": 0, "mode": "best", "x/y": 1}
    found = Schema(closed(DOCUMENTS)).problems(value)
    assert [(p.pointer, p.code, p.expected, p.got) for p in found] == [
        ("/documents/1", "type", ["string"], "integer"),
        ("/documents/3", "maxLength", "at most 9 characters", 13),
        ("/mode", "enum", ["fast", "good"], "best"),
        ("/top", "minimum", "at least 1", 0),
        ("/x~1y", "unknown_property", None, None),
    ]


def test_items_are_sorted_as_numbers():
    """The second item is told before the tenth."""
    found = Schema({"items": {"type": "string"}}).problems([1] * 12)
    assert [p.pointer for p in found] == [f"/{i}" for i in range(12)]


def test_a_missing_property_is_named_where_it_is_missing():
    """The pointer of an absent property is where it should be."""
    schema = {"properties": {"a": {"required": ["b", "c"]}}}
    found = Schema(schema).problems({"a": {}})
    assert [(p.pointer, p.code) for p in found] == [("/a/b", "required"), ("/a/c", "required")]


def test_of_several_forms_the_one_that_was_meant_is_discussed():
    """A value whose type fits one alternative only is told what that alternative misses."""
    schema = {"oneOf": [{"type": "string"}, {"type": "object", "required": ["text"]}]}
    assert [p.pointer for p in Schema(schema).problems({})] == ["/text"]
    assert [p.code for p in Schema(schema).problems(5)] == ["oneOf"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"enum": [1]},
        {"const": "x"},
        {"pattern": "^x"},
        {"minLength": 10_000},
        {"format": "date"},
        {"anyOf": [{"type": "integer"}, {"maxLength": 1}]},
        {"not": {"type": "string"}},
        {"$ref": "#/contains", "title": "by reference"},
    ],
)
@pytest.mark.parametrize("text", [SECRET, SECRET * 100])
def test_a_problem_never_repeats_a_document(schema, text):
    """Sentences, which end in logs, never contain the text; `got` never contains a long one."""
    found = Schema({"items": schema, "contains": {"maxLength": 1}}).problems([text])
    assert found
    assert all(SECRET not in problem.sentence for problem in found)
    assert all(problem.got is None or len(str(problem.got)) <= 60 for problem in found)


def test_containers_do_not_repeat_documents_either():
    """Problems of arrays and objects do not print what these hold."""
    schema = {"uniqueItems": True, "contains": {"type": "integer"}, "not": {"minItems": 1}}
    found = Schema(schema).problems([SECRET, SECRET])
    assert {p.code for p in found} == {"uniqueItems", "contains", "not"}
    assert SECRET not in str([str(p) for p in found])


def test_a_very_long_name_is_cut():
    """The name of an unknown property is repeated, but no more than a line of it."""
    [problem] = Schema(closed(DOCUMENTS)).problems({"documents": [], "n" * 100_000: 1})
    assert len(problem.pointer) < 200


def test_an_endless_list_of_mistakes_is_cut():
    """An answer lists as many problems as a person may read."""
    assert len(Schema({"items": {"type": "string"}}).problems([1] * 5000)) == MAX_PROBLEMS


def test_a_huge_wrong_value_is_refused_at_its_first_problem():
    """A million mistakes do not cost more than one, so a body cannot stall a service."""
    began = time.process_time()
    found = Schema({"items": {"type": "string"}}).problems([1] * (100 * MAX_SURVEYED))
    assert [p.pointer for p in found] == ["/0"]
    assert time.process_time() - began < 5


def test_a_nested_quantifier_is_matched_in_linear_time():
    """A pattern that stalls backtracking engines answers at once."""
    schema = Schema({"type": "string", "pattern": "^(a+)+$"})
    assert schema.problems("a" * 50_000) == []
    assert [p.code for p in schema.problems("a" * 50_000 + "!")] == ["pattern"]


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(", "(a{1000}){1000}"])
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused(pattern):
    """Look-around, back-references and monsters are refused when the schema is read."""
    [problem] = schema_problems({"properties": {"pattern": {"pattern": pattern}}})
    assert problem.pointer == "/properties/pattern/pattern"
    with pytest.raises(ValueError, match="regex"):
        Schema({"pattern": pattern})


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "other.json", "/etc/passwd"]
)
def test_nothing_is_fetched(target):
    """A reference that leaves the schema is refused with its place, and never followed."""
    [problem] = schema_problems({"properties": {"a": {"$ref": target}}})
    assert problem.pointer == "/properties/a/$ref"
    with pytest.raises(ValueError, match="retrieving it failed"):
        Schema({"properties": {"default": {"$ref": target}}})


def test_a_hidden_reference_is_refused_too():
    """A reference below a property that is named like a keyword does not slip through."""
    assert schema_problems({"properties": {"default": {"$ref": "http://127.0.0.1:9/x"}}})
    assert schema_problems({"$ref": "#/nowhere"})


def test_another_dialect_is_refused():
    """A schema of an older draft is not read as if it were a new one."""
    [problem] = schema_problems({"$schema": "http://json-schema.org/draft-04/schema#"})
    assert problem.pointer == "/$schema"
    assert schema_problems({"$schema": "https://json-schema.org/draft/2020-12/schema"}) == []


def test_a_schema_that_refers_to_itself_ends():
    """Circular references neither hang nor crash."""
    assert Schema({"$ref": "#"}).problems({}) == []
    tree = {"properties": {"left": {"$ref": "#"}}, "required": ["value"]}
    found = Schema(tree).problems({"left": {"left": {}}, "value": 1})
    assert [p.pointer for p in found] == ["/left/left/value", "/left/value"]


def test_every_mistake_in_a_schema_is_told_once():
    """An author of a schema reads all mistakes, each with its place, and each once."""
    bad = {"properties": {"a": {"type": "strin", "minLength": "x"}, "b": 3}, "required": "a"}
    found = schema_problems(bad)
    places = ["/properties/a/minLength", "/properties/a/type", "/properties/b", "/required"]
    assert [p.pointer for p in found] == places
    assert "or string, found strin" in str(found[1])


@pytest.mark.parametrize("value", [{1, 2}, {1: 2}, object(), b"x", "\ud800", float("nan")])
def test_what_json_cannot_say_is_a_problem_and_not_a_crash(value):
    """A value that is no JSON is refused like any other wrong value."""
    assert Schema({"type": "number"}).problems(value)


def test_defaults_are_filled_in_wherever_they_stand():
    """Defaults hold in nested objects and in the items of lists, and never replace a value."""
    item = {"type": "object", "properties": {"weight": {"default": 1}}}
    options = {"type": "object", "default": {}, "properties": {"deep": {"default": True}}}
    schema = Schema({"properties": {"items": {"items": item}, "options": options}})
    assert schema.with_defaults({"items": [{}, {"weight": None}, 5]}) == {
        "items": [{"weight": 1}, {"weight": None}, 5],
        "options": {"deep": True},
    }


def test_items_before_others_keep_their_own_schema():
    """The defaults of `items` do not reach the items that `prefixItems` describes."""
    schema = Schema({"prefixItems": [{}], "items": {"properties": {"a": {"default": 1}}}})
    assert schema.with_defaults([{}, {}]) == [{}, {"a": 1}]


def test_filling_in_defaults_changes_neither_the_value_nor_the_schema():
    """A default that one request changes is fresh for the next."""
    schema, value = Schema({"properties": {"tags": {"default": []}}}), {}
    schema.with_defaults(value)["tags"].append("mine")
    assert value == {}
    assert schema.with_defaults(value) == {"tags": []}


def test_a_schema_is_closed_unless_its_author_speaks():
    """Unknown properties are refused where properties are listed and nothing else is said."""
    assert closed({"properties": {}})["additionalProperties"] is False
    said = [
        {"additionalProperties": True},
        {"patternProperties": {}},
        {"unevaluatedProperties": {}},
    ]
    for words in said:
        assert closed({"properties": {}, **words}) == {"properties": {}, **words}
    assert closed({"type": "object"}) == {"type": "object"}


def test_pointers_escape_what_they_must():
    """A JSON Pointer keeps slashes and tildes of names apart from its own."""
    assert pointer(["a/b", "m~n", 0, ""]) == "/a~1b/m~0n/0/"
    assert pointer([]) == ""


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.text("ab/~", max_size=11),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from(["documents", "top", "mode", "more"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("schema", [DOCUMENTS, closed(DOCUMENTS)], ids=["open", "closed"])
@settings(max_examples=200, derandomize=True, deadline=None)
@given(value=VALUES)
def test_the_reference_implementation_agrees(schema, value):
    """What we accept is what jsonschema accepts, and our problems stand where it sees them."""
    reference = list(Draft202012Validator(schema).iter_errors(value))
    found = Schema(schema).problems(value)
    assert bool(found) == bool(reference)
    places = {pointer(list(error.absolute_path)) for error in reference}
    assert all(p.pointer in places or p.pointer.rpartition("/")[0] in places for p in found)
