"""Evaluation: measures a policy, summarizes what was found, reports it."""
