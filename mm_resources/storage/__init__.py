"""Objects and Lance datasets of a store, and local spools. May import metering."""
