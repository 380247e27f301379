"""The `mm` command: one module for each command; `main` registers them. May import every other room.

A module imports typer only. Imports of a command are at the top of its function, so that `mm --help`, the
help of a command and the errors of its arguments load no engine (dagster, ray, lance, torch).
"""
