"""One asset of one cell in one run: compute, check, publish. May import mm_resources and mm_embed_kernels."""
