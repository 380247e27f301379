"""Costs of cells: prices, past runs, savings, predictions. May import catalog and the rooms below it."""
