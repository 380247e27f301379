"""The dataset spec as pydantic models, and its successors. May import errors and the rooms below them."""
