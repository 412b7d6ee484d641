"""Trackers: what TensorBoard and Weights & Biases are told of a run, beside the ledger."""
