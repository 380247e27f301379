"""Alerts of failed checks, closed gates, changed sources and stale datasets. May import cells and below."""
