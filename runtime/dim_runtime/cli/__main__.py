"""Run the command with ``python -m dim_runtime.cli``."""

from dim_runtime.cli import main

if __name__ == "__main__":
    main()
