"""The command ``dim-export``."""

from dim_export.cli.app import main

__all__ = ["main"]
