"""What the frozen encoders make of pictures and captions, computed once and kept in shards."""
