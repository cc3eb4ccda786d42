"""The packaged models through this library: perplexity of a paragraph, and texts that they write.

  python -m pkpo_jax.pretrained gemma3_270m
  python -m pkpo_jax.pretrained smollm2_135m
  python -m experiments.pretrained.perplexity

Reads `weights/NAME`, writes results/perplexity.csv and results/completions.txt. The same paragraph,
tokens and weights have the perplexity of results/conversion.csv in transformers.
"""

import argparse
import math
import pathlib
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from experiments import results
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.tasks.text import decode_completions
from pkpo_jax.tokenizers import TOKENIZERS, Tokenizer
from pkpo_jax.types import Prompts, Rollout

COMMAND = 'python -m experiments.pretrained.perplexity'
FOLDER = pathlib.Path(__file__).parent
# The tokenizer of each model, and a file of it in the folder of weights.
MODELS = {'gemma3_270m': ('sentencepiece', 'tokenizer.model'), 'smollm2_135m': ('huggingface', '')}
TEXTS = ('The capital of France is', 'Once upon a time, there was a small', 'Red, green and')
NUM_SAMPLES, NUM_TOKENS, SEED = 2, 24, 0


def nats_per_token(policy: LanguageModel, params: dict, ids: list[int]) -> float:
  """Returns the mean of -log p of each token after the first, nats; `ids` is `[S]`."""
  first, rest = jnp.array([ids[:1]]), jnp.array([[ids[1:]]])
  everywhere = jnp.ones(rest.shape, bool)
  rollout = Rollout(first, jnp.ones(first.shape, bool), rest, everywhere, jnp.zeros(rest.shape))
  log_probs, _ = jax.jit(policy.log_probs_and_entropy)(params, rollout)
  return -float(jnp.mean(log_probs))


def write_on(
  policy: LanguageModel, params: dict, tokenizer: Tokenizer, texts: tuple[str, ...]
) -> list[list[str]]:
  """Returns NUM_SAMPLES continuations of each text, drawn at temperature 1."""
  begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  rows = [begin + tokenizer.encode(text) for text in texts]
  width = max(map(len, rows))
  tokens = np.array([[0] * (width - len(row)) + row for row in rows], np.int32)
  mask = np.array([[False] * (width - len(row)) + [True] * len(row) for row in rows])
  prompts = Prompts(jnp.arange(len(rows)), jnp.asarray(tokens), jnp.asarray(mask), hidden=None)
  sample = jax.jit(policy.sample, static_argnums=2)
  rollout = sample(params, prompts, NUM_SAMPLES, jax.random.key(SEED))
  return decode_completions(tokenizer, rollout)


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--weights', type=pathlib.Path, default=pathlib.Path('weights'))
  parser.add_argument('--models', nargs='+', default=list(MODELS), choices=list(MODELS))
  parser.add_argument('--outdir', type=pathlib.Path, default=FOLDER / 'results')
  options, start = parser.parse_args(arguments), time.monotonic()
  text = (FOLDER / 'paragraph.txt').read_text(encoding='utf-8').replace('\n', ' ').strip()
  rows, written = [], []
  for name in options.models:
    kind, file = MODELS[name]
    tokenizer = TOKENIZERS[kind](path=str(options.weights / name / file))
    task = SimpleNamespace(tokenizer=tokenizer)
    folder = str(options.weights / name)
    policy = LanguageModel(task, preset=None, weights=folder, max_new_tokens=NUM_TOKENS)
    params = policy.pretrained(jax.eval_shape(policy.init, jax.random.key(0)))
    ids = tokenizer.encode(text)
    if tokenizer.bos_id is not None:
      ids = [tokenizer.bos_id, *ids]
    nats = nats_per_token(policy, params, ids)
    rows.append(
      {
        'model': name,
        'num_tokens': len(ids),
        'nats_per_token': round(nats, 5),
        'perplexity': round(math.exp(nats), 4),
      }
    )
    print(rows[-1])
    for prompt, group in zip(TEXTS, write_on(policy, params, tokenizer, TEXTS), strict=True):
      written += [f'{name}: {prompt} |{completion!r}' for completion in group]
    print('\n'.join(written[-len(TEXTS) * NUM_SAMPLES :]))
  results.write_rows(
    options.outdir / 'perplexity.csv',
    rows,
    command=COMMAND,
    config={'models': options.models, 'temperature': 1.0, 'max_new_tokens': NUM_TOKENS},
    seed=SEED,
    wall_seconds=time.monotonic() - start,
  )
  (options.outdir / 'completions.txt').write_text('\n'.join(written) + '\n', encoding='utf-8')


if __name__ == '__main__':
  main()
