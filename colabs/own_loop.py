# %% [markdown]
# # The kernels in your own loop
#
# You have a loop that samples, rewards and updates. The kernels need the rewards of one problem's
# samples, together, and give advantages back; nothing else changes. This notebook puts them into
# plain JAX, into a loop with optax and a loss with ratios, into one whose rewards are flat, and
# into tunix's GRPO learner. `pip install .` alone is enough for all but optax and tunix.
#
# On Colab, set `REPOSITORY` first; elsewhere the first cell only finds the repository's root.

# %%
import os
import subprocess
import sys

if 'google.colab' in sys.modules:
  REPOSITORY = ''  # @param {type: "string"}
  if not REPOSITORY:
    raise ValueError('Set REPOSITORY above to the git address of this project, then run again.')
  CHECKOUT = '/content/pkpo_jax'
  if not os.path.isdir(CHECKOUT):
    subprocess.run(['git', 'clone', '--depth=1', REPOSITORY, CHECKOUT], check=True)
  install = [sys.executable, '-m', 'pip', 'install', '--quiet', f'{CHECKOUT}[figures,train]']
  subprocess.run(install, check=True)
  os.chdir(CHECKOUT)
  sys.path.insert(0, CHECKOUT)
elif os.path.basename(os.getcwd()) == 'colabs':
  os.chdir('..')  # Jupyter starts in the notebook's folder; configs and experiments are above.

# %%
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax
from IPython.display import display
from matplotlib_inline.backend_inline import set_matplotlib_formats

import pkpo_jax
from experiments import style
from pkpo_jax import schedules
from pkpo_jax.integrations import FlatAdvantages

set_matplotlib_formats('png')  # experiments.style draws without a display: show figures as PNG

# %% [markdown]
# ## Plain JAX
#
# The problem: each prompt hides which of 16 arms is right, some arms more often than others, and
# the policy cannot see which. For one guess the likeliest arm is best. For eight guesses it is
# better to spread them. A language model that cannot know which of several approaches will work is
# in the same place.

# %%
NUM_PROMPTS, NUM_ARMS, NUM_SAMPLES, NUM_STEPS = 64, 16, 8, 300
chances = jnp.arange(NUM_ARMS, 0, -1.0) / jnp.arange(1, NUM_ARMS + 1).sum()
first_logits = jnp.zeros(NUM_ARMS)


def sample(logits, key):
  """Returns arms [prompts, samples] and their rewards, 0 or 1."""
  hidden_key, arm_key = jax.random.split(key)
  hidden = jax.random.categorical(hidden_key, jnp.log(chances), shape=(NUM_PROMPTS, 1))
  arms = jax.random.categorical(arm_key, logits, shape=(NUM_PROMPTS, NUM_SAMPLES))
  return arms, (arms == hidden).astype(jnp.float32)


def log_prob(logits, arms):
  return jax.nn.log_softmax(logits)[arms]


@jax.jit
def step(logits, key, k):
  arms, rewards = sample(logits, key)
  advantages = pkpo_jax.pkpo_loo_minus_one(rewards, k=k)  # <- the one line
  loss = lambda logits: -(advantages * log_prob(logits, arms)).mean()
  return logits - 4 * jax.grad(loss)(logits)


def exact_pass_at_k(logits, ks):
  p = jax.nn.softmax(logits)
  return chances @ (1 - (1 - p[:, None]) ** jnp.asarray(ks))


KS = (1, 2, 4, 8)
learned = {}
for k in (1, 8):
  logits = first_logits
  for i in range(NUM_STEPS):
    logits = step(logits, jax.random.key(i), jnp.int32(k))
  learned[k] = logits
print(f'{"":>10}', *(f'{f"pass@{k}":>8}' for k in KS), '   (exact)')
for label, logits in {'at first': first_logits, 'k = 1': learned[1], 'k = 8': learned[8]}.items():
  print(f'{label:>10}', *(f'{value:8.3f}' for value in exact_pass_at_k(logits, KS)))
print('compiled', step._cache_size(), 'time for two values of k')
assert step._cache_size() == 1
first, last = (exact_pass_at_k(learned[k], KS) for k in (1, 8))
assert first[0] > last[0] and last[-1] > first[-1]

# %% [markdown]
# `k` is traced: it may change from step to step, as by a schedule, with no new compilation, or be
# an array with an entry for each prompt.

# %%
fall = schedules.linear(8, final_k=1, end=NUM_STEPS)
logits = first_logits
for i in range(NUM_STEPS):
  logits = step(logits, jax.random.key(i), fall(i))
print('k falls:  ', *(f'{value:8.3f}' for value in exact_pass_at_k(logits, KS)))
assert step._cache_size() == 1

per_prompt = jnp.where(jnp.arange(NUM_PROMPTS) < 32, 1, 8)  # A k for each prompt.
print(step(first_logits, jax.random.key(0), per_prompt).shape, 'with a k for each prompt')

# %% [markdown]
# ## With optax and several updates a step
#
# Advantages are numbers, not functions of the parameters: compute them once, when the rewards are
# there, and take as many updates as you like, with ratios against the policy that drew the samples
# and the usual clip.

# %%
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.05))


def clipped_loss(logits, arms, old_log_probs, advantages, clip=0.2):
  ratio = jnp.exp(log_prob(logits, arms) - old_log_probs)
  clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
  return -jnp.minimum(ratio * advantages, clipped * advantages).mean()


@jax.jit
def ppo_step(state, key, k):
  logits, opt_state = state
  arms, rewards = sample(logits, key)
  advantages = pkpo_jax.pkpo_loo_minus_one(rewards, k=k)
  old_log_probs = log_prob(logits, arms)
  for _ in range(2):
    gradient = jax.grad(clipped_loss)(logits, arms, old_log_probs, advantages)
    updates, opt_state = optimizer.update(gradient, opt_state)
    logits = optax.apply_updates(logits, updates)
  return (logits, opt_state), pkpo_jax.max_at_k(rewards, NUM_SAMPLES).mean()


state, curve = (first_logits, optimizer.init(first_logits)), []
for i in range(NUM_STEPS):
  state, solved = ppo_step(state, jax.random.key(i), 8)
  curve.append(float(solved))
figure, axis = style.plt.subplots(figsize=(style.WIDTH_1, style.HEIGHT))
axis.plot(curve, color=style.k_color(8))
axis.set(xlabel='step', ylabel='pass@8 of the samples', title='PPO with pass@8 advantages')
display(figure)
assert np.mean(curve[-20:]) > np.mean(curve[:20])

# %% [markdown]
# ## Rewards that are flat, unsorted or incomplete
#
# Kernels take groups: `[..., n]`, samples of one problem along the last axis. Flat rewards
# `[problems * n]` are one group to them, which is the most common mistake. `by_group` sorts them
# out by problem; a sample that nobody could judge is left out by `where`, and its group is that of
# the others.

# %%
rewards = np.array([1, 0, 0, 1, 1, 0], np.float32)
problem = np.array([7, 3, 7, 3, 7, 3])
wrong = pkpo_jax.pkpo_loo_minus_one(rewards, k=2)
right = pkpo_jax.by_group(rewards, problem, pkpo_jax.pkpo_loo_minus_one, k=2)
print('as one group:', np.round(wrong, 3))
print('by problem:  ', np.round(right, 3))
by_hand = pkpo_jax.pkpo_loo_minus_one(rewards[problem == 7], k=2)
np.testing.assert_allclose(right[problem == 7], by_hand, rtol=1e-6)

judged = np.array([True, True, False, True])
print('a mask:      ', pkpo_jax.rloo(np.array([1.0, 0.0, 0.0, 0.0], np.float32), where=judged))

# %% [markdown]
# ## In tunix, verl and TRL
#
# `FlatAdvantages` is the same for trainers that hold rewards and problem ids in NumPy or torch. It
# keeps count of the steps for a schedule; `pkpo_jax.integrations` has what plugs it into verl and
# TRL (`docs/other_trainers.md`, `examples/`).

# %%
flat = FlatAdvantages('pkpo_loo_minus_one', k=schedules.linear(2, final_k=1, end=2))
for _ in range(3):
  print(f'step {flat.calls}, k = {flat.k}:', np.round(flat(rewards, problem.tolist()), 3))

# %% [markdown]
# In tunix every advantage is selectable by name. The line below is all that differs from tunix's
# own examples; `examples/tunix_grpo.py` is a whole run.

# %%
if importlib.util.find_spec('tunix') is None:
  print('tunix is not installed here: pip install google-tunix, then run this cell again.')
else:
  from pkpo_jax.integrations import tunix

  print(f"advantage_estimator='{tunix.register('pkpo_loo_minus_one', k=4)}'")
