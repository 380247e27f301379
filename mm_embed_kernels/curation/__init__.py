"""Curation: decisions of all rules about each sample, and splits; imports contracts, rules and similarity."""
