"""Pure code over Arrow batches: contracts, rules, modalities, embedders, transcribers and kernels.

Nothing here imports dagster or ray; a test runs every kernel alone, on a small Arrow table.
"""
