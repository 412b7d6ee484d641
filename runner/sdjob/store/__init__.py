"""Objects in, objects out: one protocol over every kind of place."""
