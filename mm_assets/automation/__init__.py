"""Sensors, schedules and jobs of the code location. Imports operations, cells and the packages below."""
