"""Stable Diffusion's three networks in flax nnx, reading and writing diffusers' model folders as they are."""
