"""A Dagster project that holds the feature platform beside its own assets."""
