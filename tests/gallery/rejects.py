"""Refuses an input in words for the caller."""

from runner import InputRejected


def run(ctx, text):
    """Takes palindromes only."""
    if text != text[::-1]:
        raise InputRejected("`text` is not a palindrome.")
    return {"text": text}
