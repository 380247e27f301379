"""Kernels: computations per content, as chains of stages. May import embedders and the rooms below them."""
