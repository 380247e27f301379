"""Dataset spec as pydantic models: parsing, checks and successors; may import identity and errors."""
