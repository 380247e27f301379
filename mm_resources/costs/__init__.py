"""Costs of cells: prices, past runs, savings and predictions; may import the catalog and below."""
