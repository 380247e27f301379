"""The demo: real texts, pictures, sounds and videos from files to search. May import every other room."""
