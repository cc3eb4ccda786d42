"""Puzzles that the package reasoning-gym generates and scores."""
