"""Run the command with ``python -m dim_training.cli``, as ``torchrun -m`` does."""

from dim_training.cli import main

if __name__ == "__main__":
    main()
