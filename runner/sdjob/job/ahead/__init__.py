"""The real step ahead of the run: traced or compiled for a device that need not be here, by the trainers' own code."""
