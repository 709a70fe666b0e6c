"""Files that hold weights. Importing this package imports torch."""

from dim.checkpoint.format import Contents, StateDict, infer_config, load, load_into, read, save

__all__ = ["Contents", "StateDict", "infer_config", "load", "load_into", "read", "save"]
