"""Is killed while it is set up, as the kernel does where memory runs out."""

import os
import signal

from runner import Service


class Doomed(Service):
    """Kills its own process before it is ready."""

    def __init__(self, config):
        super().__init__(config)
        os.kill(os.getpid(), signal.SIGKILL)

    def __call__(self, ctx, text):
        return {"text": text}
