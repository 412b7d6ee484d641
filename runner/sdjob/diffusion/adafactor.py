"""Adafactor's constants, those of transformers.Adafactor: eps[0], decay_rate and clip_threshold.

https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/optimization.py
"""

FLOOR = 1e-30
"""Added to every squared gradient."""

DECAY = -0.8
"""Step t keeps 1 - t ** DECAY of the means (arXiv 1804.04235, section 7.2)."""

CLIP = 1.0
"""An update whose root mean square is larger is scaled down to it (section 6)."""
