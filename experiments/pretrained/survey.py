"""Which drills the packaged models can do, in one sample and in many, before any training.

  python -m pkpo_jax.pretrained gemma3_270m
  python -m pkpo_jax.pretrained smollm2_135m
  python -m experiments.pretrained.survey

Reads `weights/NAME`, writes results/survey.csv and prints it as a table. A drill whose row is in
the file already is not run again (--again runs all).
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import results
from experiments.pretrained.perplexity import FOLDER, MODELS
from pkpo_jax.curves import curve
from pkpo_jax.intervals import mean_interval
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.progress import Progress
from pkpo_jax.tasks.drills import KINDS, Drills
from pkpo_jax.tokenizers import TOKENIZERS

COMMAND = 'python -m experiments.pretrained.survey'
KS = (1, 2, 4, 8, 16)
NUM_PROBLEMS, NUM_SAMPLES, NUM_TOKENS, SEED = 32, 16, 12, 0


def survey(policy: LanguageModel, sample, params: dict, task: Drills) -> dict[str, float]:
  """Returns pass@k with the interval of the first and the last k, and what completions are like."""
  key = jax.random.key(SEED)
  prompts = task.held_out(NUM_PROBLEMS, key)
  rollout = task.trim(sample(params, prompts, NUM_SAMPLES, key))
  verdicts = task.verdicts(prompts, rollout)
  is_right = np.array([[x.is_success for x in group] for group in verdicts], np.float32)
  passed = curve(jnp.asarray(is_right), KS)
  row = {}
  for k, values in zip(KS, passed.T, strict=True):
    interval = mean_interval(values, key)
    row[f'pass@{k}'] = round(float(interval.mean), 4)
    if k in (KS[0], KS[-1]):
      row |= {f'pass@{k}_low': round(float(interval.low), 4)}
      row |= {f'pass@{k}_high': round(float(interval.high), 4)}
  cut = [[x.kind in ('overlong', 'empty') for x in group] for group in verdicts]
  row['without_answer'] = round(float(np.mean(cut)), 4)
  row['prompt_tokens'] = round(float(np.mean(np.sum(prompts.mask, axis=-1))), 1)
  return row


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--weights', type=pathlib.Path, default=pathlib.Path('weights'))
  parser.add_argument('--models', nargs='+', default=list(MODELS), choices=list(MODELS))
  parser.add_argument('--kinds', nargs='+', default=list(KINDS), choices=list(KINDS))
  parser.add_argument('--outdir', type=pathlib.Path, default=FOLDER / 'results')
  parser.add_argument('--again', action='store_true', help='run the drills of the file again')
  options, start = parser.parse_args(arguments), time.monotonic()
  path, rows, seconds = options.outdir / 'survey.csv', [], 0.0
  if path.exists() and not options.again:
    rows, seconds = results.read_rows(path), float(results.read_provenance(path)['wall_seconds'])
  done = {(row['model'], row['drill']) for row in rows}
  todo = [(m, kind) for kind in options.kinds for m in options.models if (m, kind) not in done]
  loaded = {}
  for name, kind in Progress('survey', items=todo, unit='drill'):
    tokenizer_name, file = MODELS[name]
    folder = options.weights / name
    tokenizer = TOKENIZERS[tokenizer_name](path=str(folder / file))
    task = Drills(tokenizer, kind, num_train=1, num_held_out=NUM_PROBLEMS)
    if name not in loaded:
      policy = LanguageModel(task, preset=None, weights=str(folder), max_new_tokens=NUM_TOKENS)
      params = policy.pretrained(jax.eval_shape(policy.init, jax.random.key(0)))
      loaded[name] = policy, jax.jit(policy.sample, static_argnums=2), params
    rows.append({'model': name, 'drill': kind, **survey(*loaded[name], task)})
    print(rows[-1], flush=True)
    results.write_rows(
      path,
      sorted(rows, key=lambda row: (row['model'], list(KINDS).index(row['drill']))),
      command=COMMAND,
      config={
        'num_problems': NUM_PROBLEMS,
        'num_samples': NUM_SAMPLES,
        'num_examples': 4,
        'max_new_tokens': NUM_TOKENS,
        'temperature': 1.0,
      },
      seed=SEED,
      wall_seconds=seconds + time.monotonic() - start,
    )


if __name__ == '__main__':
  main()
