"""Raises while it is set up."""

from pathlib import Path

from runner import Service


class Broken(Service):
    """Wants a model that is not there."""

    def __init__(self, config):
        super().__init__(config)
        self.model = Path("/nowhere/model.bin").read_bytes()

    def __call__(self, ctx, text):
        return {"text": text}
