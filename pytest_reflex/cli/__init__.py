"""The ``reflex`` command: the composition root, where the makers and the judge meet."""

from pytest_reflex.cli.main import main

__all__ = ["main"]
