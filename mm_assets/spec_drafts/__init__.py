"""Dataset specs drafted from a folder, for `mm init`. May import mm_resources and mm_embed_kernels."""
