"""What runs around the trainer: stage, launch, run, outcome, publish."""
