"""nlp-runner: a service is a manifest plus a handler. These are the names an author may need."""

from runner.context import Context
from runner.errors import InputRejected, TransientFailure
from runner.handler import Service

__all__ = ["Context", "InputRejected", "Service", "TransientFailure"]
