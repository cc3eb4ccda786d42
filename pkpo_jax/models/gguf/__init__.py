"""GGUF files, the format of llama.cpp, and the Hugging Face folders that are made of them."""

from pkpo_jax.models.gguf.conversion import convert

__all__ = ['convert']
