"""Run the command with ``python -m dim_export.cli``."""

from dim_export.cli import main

if __name__ == "__main__":
    main()
