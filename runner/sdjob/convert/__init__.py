"""Command lines of diffusers' training scripts to job files: text in, text out. Nothing is executed, asked for or downloaded.

Facts (flags, defaults, what a flag does) are those of diffusers 58eb52c, between 0.39 and 0.40, each beside its source.
"""
