"""Sensors, schedules and jobs. May import operations, curation, cells and the rooms below them."""
