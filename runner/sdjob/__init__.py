"""sdjob: one YAML file fine-tunes Stable Diffusion anywhere."""

__version__ = "0.1.0"
