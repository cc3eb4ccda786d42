"""The noise that a baseline leaves in the gradient of max@k, on scores of a tiny Gemma-2."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from configs import quickstart
from experiments import results
from experiments.quickstart import compile_quickly
from pkpo_jax import pkpo_centered, pkpo_loo_minus_one, pkpo_weighted_loo, sharding
from pkpo_jax.evaluate import restore
from pkpo_jax.run import Run, make_run
from pkpo_jax.train import train

RESULTS = Path(__file__).parent / 'results'
SEED = 0
CONFIG = {
  'num_steps': 300,
  'steps': (0, 100, 200, 300),
  'num_mazes': 12,
  'pool': 256,
  'num_samples': 16,
  'ks': (1, 2, 4, 8),
  'num_groups': 4096,
}
SMOKE = {'num_steps': 4, 'steps': (0, 4), 'num_mazes': 2, 'pool': 64, 'ks': (2,), 'num_groups': 64}


def main() -> None:
  """Trains a policy and writes a row for each of its checkpoints, each k and each baseline."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', type=Path, default=Path('runs/gradient_noise'))
  parser.add_argument(
    '--smoke', action='store_true', help='a few steps and mazes: shows only that it runs'
  )
  args = parser.parse_args()
  logging.set_verbosity(logging.WARNING)
  config = CONFIG | (SMOKE if args.smoke else {})
  workdir = args.workdir / 'smoke' if args.smoke else args.workdir
  compile_quickly(workdir / '.jax_cache')
  started = time.perf_counter()
  run, checkpoints = train_policy(workdir, config)
  rows = []
  for step, params in checkpoints:
    rows += list(noise_rows(run, step, params, config))
    for row in rows[-len(WEIGHTS) * len(config['ks']) :]:
      noise, error = row['relative_noise'], row['relative_noise_se']
      print(f'step {step:4} k {row["k"]} {row["baseline"]:26} {noise:6.2f} +- {error:.2f}')
  results.write_rows(
    (workdir if args.smoke else RESULTS) / 'noise.csv',
    rows,
    command='python -m experiments.gradient_noise.sweep',
    config=config,
    seed=SEED,
    wall_seconds=time.perf_counter() - started,
  )


def train_policy(workdir: Path, config: dict) -> tuple[Run, Iterator]:
  """Returns the run of the quickstart's model for pass@8, and (step, parameters) as it learns."""
  warm, policy = quickstart.get_config('warm'), quickstart.get_config()
  policy.warm_start, policy.advantage.k = str(workdir / 'warm'), 8
  policy.num_train_steps = config['num_steps']
  policy.checkpoint.every = policy.eval.every = config['num_steps'] // (len(config['steps']) - 1)
  policy.checkpoint.max_to_keep = len(config['steps'])
  for each, name in ((warm, 'warm'), (policy, 'k8')):
    each.seed = SEED
    train(each, workdir / name)
  run = make_run(policy)
  mesh = sharding.make_mesh(run.settings.mesh)

  def checkpoints():
    for step in config['steps']:
      name, at = ('k8', step) if step else ('warm', 'latest')
      yield step, restore(run, mesh, workdir / name, at)[1]

  return run, checkpoints()


def noise_rows(run: Run, step: int, params, config: dict) -> Iterator[dict[str, results.Value]]:
  """Yields the noise of each baseline beside that of `pkpo_loo_minus_one`, over some mazes."""
  keys = jax.random.split(jax.random.key(SEED + step), 3)
  prompts = run.task.held_out(8 * config['num_mazes'], keys[0])
  rollout = run.policy.sample(params, prompts, config['pool'], keys[1])
  rewards = np.asarray(run.task.grade(prompts, rollout, keys[2]).rewards)
  # Mazes that are neither solved nor hopeless.
  rates = rewards.mean(axis=1)
  chosen = np.flatnonzero((rates > 0.01) & (rates < 0.99))[: config['num_mazes']]
  pools = [pool_of(run, params, jax.tree.map(lambda x, p=p: x[p : p + 1], rollout)) for p in chosen]
  measured = list(zip(pools, rewards[chosen], strict=True))
  ratios = [pool['norm'][r == 0].mean() / pool['norm'][r == 1].mean() for pool, r in measured]
  for k in config['ks']:
    noises = [list(noise_of(pool, r, k, config).values()) for pool, r in measured]
    noises = np.array(noises)
    # The noise of all mazes together, with a jackknife over them.
    relative = noises.sum(axis=0) / noises[:, :1].sum()
    without = (noises.sum(axis=0) - noises) / (noises[:, :1].sum() - noises[:, :1])
    error = np.sqrt((len(noises) - 1) * np.mean((without - without.mean(axis=0)) ** 2, axis=0))
    for name, x, se in zip(WEIGHTS, relative, error, strict=True):
      yield {
        'step': step,
        'k': k,
        'baseline': name,
        'relative_noise': float(x),
        'relative_noise_se': float(se),
        'num_mazes': len(chosen),
        'pass_rate': float(rates[chosen].mean()),
        'wrong_to_right': float(np.mean(ratios)),
      }


def pool_of(run: Run, params, rollout) -> dict[str, np.ndarray]:
  """Returns the products of the score vectors of a maze's samples, and what may weigh them.

  Args:
    run: its policy.
    params: of the policy.
    rollout: of one prompt, `[1, M, L]`.
  """
  count = rollout.completions.shape[1]

  def score(params, i):
    one = rollout.replace(
      completions=rollout.completions[:, i][:, None],
      completion_mask=rollout.completion_mask[:, i][:, None],
      sampling_log_probs=rollout.sampling_log_probs[:, i][:, None],
    )
    log_probs, _ = run.policy.log_probs_and_entropy(params, one)
    return jnp.sum(jnp.where(one.completion_mask, log_probs, 0))

  def flat_score(i):
    gradient = jax.grad(score)(params, i)
    return jnp.concatenate([x.ravel() for x in jax.tree.leaves(gradient)])

  scores = np.asarray(jax.jit(lambda: jax.lax.map(flat_score, jnp.arange(count), batch_size=16))())
  gram = scores.astype(np.float64) @ scores.T.astype(np.float64)
  mask = np.asarray(rollout.completion_mask)[0]
  chances = np.exp(np.asarray(rollout.sampling_log_probs, np.float64))[0]
  return {
    'gram': gram,
    'norm': np.diag(gram),
    'surprise': np.sum(np.where(mask, (1 - chances) ** 2, 0), axis=-1),
    'length': mask.sum(axis=-1).astype(float),
  }


# Baseline -> the numbers of a pool that weigh its samples; None for the advantages without.
WEIGHTS = {
  'loo_minus_one': None,
  'centered': None,
  'weighted alike': 'ones',
  'weighted by squared norms': 'norm',
  'weighted by surprise': 'surprise',
  'weighted by length': 'length',
}


def noise_of(
  pool: dict[str, np.ndarray], rewards: np.ndarray, k: int, config: dict
) -> dict[str, float]:
  """Returns the trace of the variance of a group's gradient, by baseline, for one maze.

  It is E|G|^2 - |E G|^2: a mean over groups that are drawn from the pool without replacement, less
  the mean product of the gradients of two groups without a common sample.
  """
  n, rng = config['num_samples'], np.random.default_rng(SEED)
  draws = np.argsort(rng.random((config['num_groups'], config['pool'])), axis=1)
  first, second = draws[:, :n], draws[:, n : 2 * n]
  gram = pool['gram'] / n**2
  within, across = (gram[first[:, :, None], others[:, None, :]] for others in (first, second))
  mean_product = lambda a, grams, b: np.einsum('gi,gij,gj->g', a, grams, b, optimize=True).mean()
  noise = {}
  for name, weights in WEIGHTS.items():
    own, others = (advantages_of(name, weights, pool, rewards, g, k) for g in (first, second))
    noise[name] = mean_product(own, within, own) - mean_product(own, across, others)
  return noise


def advantages_of(
  name: str,
  weights: str | None,
  pool: dict[str, np.ndarray],
  rewards: np.ndarray,
  groups: np.ndarray,
  k: int,
) -> np.ndarray:
  """Returns the advantages `[G, n]` of groups of a pool, by baseline."""
  g = jnp.asarray(rewards[groups])
  if weights is None:
    fn = {'loo_minus_one': pkpo_loo_minus_one, 'centered': pkpo_centered}[name]
    return np.asarray(fn(g, k=k), np.float64)
  values = np.ones(len(rewards)) if weights == 'ones' else pool[weights]
  w = jnp.asarray(values[groups], jnp.float32)
  return np.asarray(pkpo_weighted_loo(g, k=k, baseline_weights=w), np.float64)


if __name__ == '__main__':
  main()
