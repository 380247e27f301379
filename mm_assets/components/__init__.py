"""Dagster components: the platform and datasets in any project. May import definitions and below."""
