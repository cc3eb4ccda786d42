"""What `python -m pkpo_jax.report` puts on its page."""
