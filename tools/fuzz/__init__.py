"""Mutated files for every reader of this project, each batch in a child process with limits."""
