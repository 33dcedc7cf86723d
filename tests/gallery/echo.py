"""Gives a text back."""

from runner import Service


class Echo(Service):
    """Returns its text, reversed if asked."""

    def __call__(self, ctx, text, reverse):
        return {"text": text[::-1] if reverse else text}
