"""Kernels: expensive computations per content, as chains of stages; may import every other package here."""
