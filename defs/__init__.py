"""The Dagster project of this repository, for `dg`: its definitions stand in `project`."""
