"""Events and metrics of a run's attempts."""
