"""Processes that run what may hang, crash or be hostile: a pool, a sandbox, remote calls."""
