"""What every backend must agree on: noise schedule, random streams, learning rates, names of weights."""
