"""Run kernels through the compute cache, inline or on Ray. Imports storage, settings and metering."""
