"""Assets of the project and components of the platform."""
