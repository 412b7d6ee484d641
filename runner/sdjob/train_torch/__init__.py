"""The torch trainer: started as a process, never imported."""
