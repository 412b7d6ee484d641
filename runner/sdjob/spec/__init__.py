"""The job file: text in, frozen models out. Pure."""
