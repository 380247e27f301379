"""Objects and Lance datasets of a store, and local spools; imports only `mm_resources.metering`."""
