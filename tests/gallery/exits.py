"""Tries to end the process politely."""

import sys


def run(ctx, text):
    """Calls `sys.exit`, as scripts do that were never meant to be a service."""
    sys.exit(3)
