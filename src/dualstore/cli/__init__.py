"""The command line: thin commands that parse, call, print, and say by their exit code how it went."""

from dualstore.cli.main import main

__all__ = ["main"]
