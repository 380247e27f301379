"""Pure code over Arrow batches: contracts, probes, curation rules, segmenters and embedders.

Nothing here imports dagster or ray; a test runs every kernel alone, on a small Arrow table.
"""
