"""The twelve assets, their checks, jobs and automation, and the `mm` command."""
