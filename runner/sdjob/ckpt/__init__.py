"""The commit log of a run. It sees files, never tensors."""
