"""Running networks: precision, weights, padding, BERT; imports errors and identity only."""
