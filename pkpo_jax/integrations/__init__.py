"""The advantages in other people's trainers: tunix, verl and TRL.

`FlatAdvantages` works for any trainer that has flat rewards and the prompts that they are of. None
of the modules imports the library that it is for, unless it is called to register something there.
"""

from pkpo_jax.integrations.flat import FlatAdvantages

__all__ = ['FlatAdvantages']
