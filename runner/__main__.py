"""`python -m runner` is `nlp-runner`."""

from runner.cli import main

main()
