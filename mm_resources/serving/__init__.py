"""The service: HTTP API and explorer over published pins; may import every other room of the package."""
