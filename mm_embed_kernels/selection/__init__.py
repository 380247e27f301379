"""Samples chosen by their vectors: spread, coverage, typicality, doubtful labels. Imports errors alone."""
