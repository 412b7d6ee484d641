"""What knows nothing about jobs: errors, clock, log, retry, processes."""
