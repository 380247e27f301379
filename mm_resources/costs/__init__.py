"""Costs of cells, prices, and predictions for other sizes. Imports the catalog and what lies below it."""
