"""The `mm` command: one module for each command; `main` registers them. May import every other room.

A module loads with typer alone. What a command needs is imported at the top of its function, so that
`mm --help`, the help of a command and the errors of its arguments load no engine (dagster, ray, lance,
torch).
"""
