"""Data: sets of problems, prepared once, and which prompts a step gets."""
