"""The first layer of the bundled network: spaCy's attributes and what the lexicon knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy
from spacy.tokens import Doc
from spacy.util import registry
from thinc.api import (
    HashEmbed,
    Linear,
    Maxout,
    Model,
    chain,
    concatenate,
    list2ragged,
    ragged2list,
    with_array,
)

from handlers.ner.lexicon import COLUMNS, KEY, VECTORS


def lexical_attributes(
    attributes: Sequence[str | int],
) -> Model[list[Doc], list[numpy.ndarray]]:
    """Makes a layer that lays spaCy's token attributes and the lexicon's columns side by side."""
    model = Model("lexical_attributes", attributes_forward)
    model.attrs["attributes"] = list(attributes)
    return model


def attributes_forward(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[numpy.ndarray], Callable]:
    """Collects one array of shape (tokens, attributes + 8) a document; nothing flows back."""
    arrays = []
    count = len(model.attrs["attributes"])
    for doc in docs:
        own = doc.to_array(model.attrs["attributes"]).reshape((len(doc), count))
        arrays.append(numpy.hstack([own.astype("uint64"), doc.user_data[KEY]]))
    return arrays, lambda gradients: []


def lexical_vectors() -> Model[list[Doc], list[numpy.ndarray]]:
    """Makes a layer that hands on the lexicon's vectors, which training leaves as they are."""
    return Model("lexical_vectors", vectors_forward)


def vectors_forward(
    model: Model, docs: list[Doc], is_train: bool
) -> tuple[list[numpy.ndarray], Callable]:
    """Collects one array of shape (tokens, vector size) a document; nothing flows back."""
    return [doc.user_data[VECTORS] for doc in docs], lambda gradients: []


@registry.architectures("nlp_runner.LexicalEmbed.v2")
def lexical_embed(
    width: int,
    attributes: list[str],
    rows: list[int],
    parts: int,
    vectors: int,
    dense: int,
) -> Model[list[Doc], list[numpy.ndarray]]:
    """Embeds token attributes and lexicon columns by hashing, adds vectors, mixes all to `width`.

    `rows` has one table size an attribute, then one a lexicon column; each table is `parts` wide.
    The vectors, of the size `vectors`, come in through a linear layer `dense` wide.
    """
    if len(rows) != len(attributes) + COLUMNS:
        raise ValueError(f"expected {len(attributes) + COLUMNS} table sizes, found {len(rows)}")
    tables = [
        HashEmbed(parts, count, column=column, seed=7 + column, dropout=0.0)
        for column, count in enumerate(rows)
    ]
    mixer = Maxout(nI=parts * len(rows) + dense, nO=width, nP=3, dropout=0.0, normalize=True)
    return chain(
        concatenate(
            chain(
                lexical_attributes(attributes),
                list2ragged(),
                with_array(concatenate(*tables)),
            ),
            chain(
                lexical_vectors(),
                list2ragged(),
                with_array(Linear(nI=vectors, nO=dense)),
            ),
        ),
        with_array(mixer),
        ragged2list(),
    )
