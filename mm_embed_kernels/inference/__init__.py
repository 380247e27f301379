"""Networks: runtimes, precision, weights, padding, BERT. May import errors and the rooms below them."""
