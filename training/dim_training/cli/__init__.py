"""The command `dim-train`."""

from dim_training.cli.app import main

__all__ = ["main"]
