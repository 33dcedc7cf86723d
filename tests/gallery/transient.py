"""Meets a failure that passes."""

from runner import TransientFailure


def run(ctx, succeed_on):
    """Succeeds from the attempt `succeed_on` on."""
    if ctx.attempt < succeed_on:
        raise TransientFailure(f"The model server was away on attempt {ctx.attempt}.")
    return {"done": ctx.attempt}
