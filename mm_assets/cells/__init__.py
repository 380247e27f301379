"""One asset of one cell in one run: read, compute, check, publish, report. Imports resources and kernels."""
