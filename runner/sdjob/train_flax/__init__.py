"""The flax trainer: started as a process, never imported. It never imports torch: a TPU image has none."""
