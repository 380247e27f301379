"""Samples chosen by their vectors, and labels that these contradict. Imports extras and errors."""
