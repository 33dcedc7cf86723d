"""The service my-service: counts the words of each document.

A plain function is a handler too; then the manifest says `handler: handlers.my_service:run`:

    def run(ctx, documents, unique):
        return {"counts": [...], "total": ...}
"""

import re

from runner import InputRejected, Service


class MyService(Service):
    """Counts words; replace it with your own work."""

    def __init__(self, config):
        """Load what every request needs: this runs once per process, before the first request."""
        super().__init__(config)
        self.word = re.compile(rf"\w{{{config.shortest},}}")

    def __call__(self, ctx, documents, unique):
        """Answer one request: every property of the input is an argument, defaults filled in."""
        if not any(documents):
            raise InputRejected("All documents are empty.")  # words for the caller, not an error
        with ctx.step("count") as step:
            # `track` reports progress, and ends the work here when the job is canceled or late.
            counts = [self.count(document, unique) for document in step.track(documents)]
        with ctx.step("sum"):
            ctx.log.info("counted %d documents", len(documents))
            return {"counts": counts, "total": sum(counts)}

    def count(self, document, unique):
        """Return the number of words in one document."""
        words = self.word.findall(document.lower())
        return len(set(words) if unique else words)
