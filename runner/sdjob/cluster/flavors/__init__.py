"""Where pods are put on each kind of cluster."""
