"""Makes one line of what an author or a mailer wrapped at a fixed width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

NARROWEST, WIDEST = 40, 200
"""Characters; narrower lines are a list or verses, and who breaks wider ones breaks paragraphs."""
OPENING = "\"'“‘«("


def unwrap(text: str) -> str:
    """Return the text with a blank for each line break inside a sentence; places stay the same.

    Two lines are one when the second goes on in lower case, or when most lines of their paragraph
    end where the next word would not have fitted.
    """
    return "".join(
        line[:-cut] + " " * cut if cut else line
        for block in paragraphs(text.splitlines(keepends=True))
        for line, cut in joined(block)
    )


def paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the runs of lines between empty ones; an empty line stands alone."""
    block: list[str] = []
    for line in lines:
        if line.strip():
            block.append(line)
            continue
        if block:
            yield block
            block = []
        yield [line]
    if block:
        yield block


def joined(block: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each line with the length of the break behind it that is none, or 0."""
    sizes = [len(line.strip()) for line in block]
    width = max(sizes)
    full = [
        size + 1 + first_word(after) > width for size, after in zip(sizes, block[1:], strict=False)
    ]
    wrapped = NARROWEST <= width <= WIDEST and len(block) > 2 and 2 * sum(full) >= len(full)
    for index, line in enumerate(block):
        if index == len(block) - 1:
            yield line, 0
        elif (wrapped and full[index]) or continues(block[index + 1]):
            yield line, len(line) - len(line.splitlines()[0])
        else:
            yield line, 0


def first_word(line: str) -> int:
    """Return the length of a line's first word."""
    return len(line.split(None, 1)[0])


def continues(line: str) -> bool:
    """Tell whether a line goes on with a sentence: in lower case, and not as an item of a list."""
    start = line.lstrip().lstrip(OPENING)[:1]
    return start.isalpha() and start.islower()
