"""The command `dim-matte`."""

from dim_runtime.cli.app import main

__all__ = ["main"]
