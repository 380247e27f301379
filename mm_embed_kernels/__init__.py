"""Pure code over Arrow batches: contracts, probes, curation rules, segmenters and embedders.

Nothing in here knows dagster or ray; every kernel runs alone, in a test, on a small Arrow table.
"""
