"""Compares each architecture with transformers' own class, in float32 on small random weights.

  python -m benchmarks.parity

Reads tests/fixtures/huggingface, which tests/fixtures/make_huggingface_models.py has made, and
writes results/parity_cpu.csv, .md: the largest difference of a logit, in nats, along three ways.
'whole' is all tokens as a prompt, one of the two padded on the left; 'group' a prompt and two equal
completions on its keys and values; 'cache' the same completions token by token.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks import common
from pkpo_jax.models import architecture_of, loading
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.policies.language_model import completion_hidden

FIXTURES = pathlib.Path(__file__).parent.parent / 'tests' / 'fixtures' / 'huggingface'
PROMPT_LENGTH = 11  # Longer than the windows of 8, with padding in it; completions are longer, too.


def load(folder: pathlib.Path) -> tuple[Transformer, dict]:
  """Returns the model that a folder describes, in float32, and its parameters."""
  architecture = architecture_of(None, str(folder))
  model = Transformer(architecture)
  like = jax.eval_shape(model.init, jax.random.key(0))['weights']
  return model, {'weights': loading.load_params(folder, like, architecture)}


def differences(
  model: Transformer, params: dict, golden: dict[str, np.ndarray]
) -> dict[str, float]:
  """Returns the largest absolute difference of a logit, nats, along each way.

  Args:
    model: in float32.
    params: its parameters.
    golden: tokens `[B, S]`, their mask, and the logits `[B, S, V]` to compare with.
  """
  tokens, mask, expected = (jnp.asarray(golden[name]) for name in ('tokens', 'mask', 'logits'))
  largest = lambda logits, expected: float(jnp.max(jnp.abs(logits - expected)))
  positions = model.prompt_positions(mask)
  hidden, _ = jax.jit(model.__call__)(params, tokens[:, None], positions[:, None])
  whole = jnp.where(mask[..., None], model.logits(params, hidden)[:, 0] - expected, 0)

  prompts, prompt_mask = tokens[:, :PROMPT_LENGTH], mask[:, :PROMPT_LENGTH]
  completions = jnp.stack([tokens[:, PROMPT_LENGTH:]] * 2, axis=1)
  expected = expected[:, None, PROMPT_LENGTH - 1 : -1]
  of_group = jax.jit(completion_hidden, static_argnums=0)
  group = model.logits(params, of_group(model, params, prompts, prompt_mask, completions))

  _, key_values = model(params, prompts[:, None], positions[:, None, :PROMPT_LENGTH])
  memory = model.prompt_memory(key_values)
  cache = model.empty_cache(*completions.shape)
  step, cached = jax.jit(model.__call__), 0.0
  for t in range(completions.shape[2] - 1):
    position = jnp.broadcast_to(
      positions[:, None, PROMPT_LENGTH + t, None], (*completions.shape[:2], 1)
    )
    token = completions[..., t : t + 1]
    hidden, cache = step(params, token, position, memory, cache, jnp.int32(t))
    cached = max(cached, largest(model.logits(params, hidden), expected[:, :, t + 1, None]))
  return {
    'whole': largest(whole, 0.0),
    'group': largest(group, expected),
    'cache': cached,
  }


COLUMNS = ('variant', 'largest_logit', 'whole', 'group', 'cache')


def main() -> None:
  """Writes the table."""
  lines = common.describe('benchmarks.parity', [], 'float32; transformers 5.24.0, torch 2.13.0')
  rows = []
  for folder in sorted(path for path in FIXTURES.iterdir() if path.is_dir()):
    model, params = load(folder)
    golden = load_file(folder / 'golden.safetensors')
    largest = float(np.abs(golden['logits']).max())
    row = {'variant': folder.name, 'largest_logit': largest}
    rows.append(row | differences(model, params, golden))
  title = 'Logits of each architecture beside those of transformers'
  caption = 'The largest absolute difference of a logit, nats, and the largest logit.'
  path = common.FOLDER / 'results' / 'parity_cpu'
  common.write(title, {'parity': rows}, {'parity': COLUMNS}, {'parity': caption}, lines, path)


if __name__ == '__main__':
  main()
