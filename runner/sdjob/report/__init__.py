"""A run as one page for people: gathered from its place, never written to it."""
