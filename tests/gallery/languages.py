"""Works in two languages."""


def run(ctx, language):
    """Returns the language that was looked up."""
    return {"language": language}
