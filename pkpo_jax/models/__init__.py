"""Language models: their forward passes and their released weights."""
