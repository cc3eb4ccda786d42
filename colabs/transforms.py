# %% [markdown]
# # What the transforms do to a reward vector
#
# A policy draws $n$ samples for one prompt and gets rewards $g_1, \dots, g_n$. Ordinary policy
# gradients raise the mean reward, pass@1. To raise the best of $k$ draws instead,
#
# $$\mathrm{max@}k = \mathbb{E}\,[\max(g(x_1), \dots, g(x_k))], \qquad
#   \text{for } g \in \{0, 1\}: \ \mathrm{pass@}k,$$
#
# it is enough to transform the $n$ rewards jointly into advantages $A_1, \dots, A_n$ and go on as
# before: $\mathbb{E}\,[\frac1n \sum_i A_i \nabla \log p(x_i)] = \nabla\, \mathrm{max@}k$.
# This notebook looks at the transforms of PKPO (Walder & Karkhanis,
# [arXiv 2505.15201](https://arxiv.org/abs/2505.15201)) and Pass@k Training (Chen et al.,
# [arXiv 2508.10751](https://arxiv.org/abs/2508.10751)) and checks that equation by enumeration.
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
import itertools
from fractions import Fraction
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
from IPython.display import display
from matplotlib_inline.backend_inline import set_matplotlib_formats

import pkpo_jax
from experiments import gaussian_exact, style

set_matplotlib_formats('png')  # experiments.style draws without a display: show figures as PNG

# %% [markdown]
# ## One vector, by hand
#
# The definitions need no cleverness: look at all $\binom nk$ subsets of the samples. With
# $\sum_{I \ni i}$ over the $k$-subsets that hold sample $i$,
#
# $$s_i = \frac{1}{\binom nk} \sum_{I \ni i} \max_I g, \qquad
#   s^{\mathrm{loo-1}}_i = \frac{1}{\binom nk} \sum_{I \ni i}
#   \Big( \max_I g - \max_{I \setminus i} g \Big),$$
#
# and the estimate of max@$k$ is the mean of $\max_I g$ over all subsets. The second transform is
# what the paper calls PKPO: it asks what sample $i$ adds to the others.

# %%
g, k = (3, 1, 4, 1, 5, 9, 2, 6), 3
n = len(g)
subsets = list(itertools.combinations(range(n), k))


def best(samples):
  return max(g[i] for i in samples)


def mean_over_subsets(values):
  return Fraction(sum(values), len(subsets))


rho = mean_over_subsets(best(subset) for subset in subsets)
s, s_loo_minus_one = [], []
for i in range(n):
  holding_i = [set(subset) for subset in subsets if i in subset]
  s.append(mean_over_subsets(best(subset) for subset in holding_i))
  s_loo_minus_one.append(
    mean_over_subsets(best(subset) - best(subset - {i}) for subset in holding_i)
  )
print(f'{len(subsets)} subsets; estimate of max@{k}: {rho}')
print(f'{"reward":>6} {"s":>8} {"s loo-1":>8}')
for row in zip(g, s, s_loo_minus_one, strict=True):
  print('{:>6} {!s:>8} {!s:>8}'.format(*row))

# %% [markdown]
# The kernels get the same numbers from one sort and one cumulative sum, for any leading axes.
# **They return $A_i = n\,w_i$ of the papers' weights $w_i$**, because losses average over samples
# and the papers' formulas sum.

# %%
rewards = jnp.array(g, jnp.float32)
same = {'rtol': 1e-6, 'atol': 1e-6}
np.testing.assert_allclose(pkpo_jax.max_at_k(rewards, k), float(rho), **same)
np.testing.assert_allclose(pkpo_jax.pkpo(rewards, k=k) / n, np.array(s, float), **same)
np.testing.assert_allclose(
  pkpo_jax.pkpo_loo_minus_one(rewards, k=k) / n, np.array(s_loo_minus_one, float), **same
)
print('k       ', *(f'{j:7d}' for j in range(1, n + 1)))
print('max@k   ', *(f'{x:7.3f}' for x in pkpo_jax.pass_at_k_curve(rewards, range(1, n + 1))))

# %% [markdown]
# At $k = 1$ the estimate is the mean, at $k = n$ the maximum. There is none for $k > n$: asking
# raises an error.
#
# ## Several advantages of the same vector
#
# Samples are sorted by reward. `rloo` and `grpo` are made for the mean: what counts is how far
# a sample is above it. The other four are made for max@$k$: the best sample stands out.

# %%
assert pkpo_jax.max_at_k(rewards, 1) == rewards.mean()
assert pkpo_jax.max_at_k(rewards, n) == rewards.max()
try:
  pkpo_jax.max_at_k(rewards, n + 1)
  raise AssertionError('k > n went through')
except ValueError as error:
  print('ValueError:', error)

ascending = np.sort(g)
names = ['pkpo', 'pkpo_loo_minus_one', 'pkpo_centered', 'passk_analytical', 'rloo', 'grpo']
figure, axes = style.plt.subplots(2, 3, figsize=(style.WIDTH_2, 1.4 * style.HEIGHT))
for axis, name in zip(axes.flat, names, strict=True):
  axis.bar(
    range(n), pkpo_jax.ADVANTAGES[name](ascending, k=k), color=style.method(name)['color'], zorder=2
  )
  axis.axhline(0, color='black', linewidth=0.8)
  axis.set(title=name, xlabel='reward of the sample')
  axis.set_xticks(range(n), ascending)
for axis in axes[:, 0]:
  axis.set_ylabel('advantage')
figure.suptitle(f'Advantages for k = {k} (rloo and grpo do not depend on k)')
display(figure)

# %% [markdown]
# `pkpo_loo_minus_one` is never negative and gives exactly 0 to the $k - 1$ lowest samples, which
# are the best of no subset. `pkpo_centered` is unbiased for the same objective and sums to 0.

# %%
advantages = pkpo_jax.pkpo_loo_minus_one(ascending, k=k)
assert (advantages[: k - 1] == 0).all() and (advantages[k - 1 :] > 0).all()
assert abs(pkpo_jax.pkpo_centered(ascending, k=k).sum()) < 1e-4
# Neither sees a constant added to all rewards.
for name in ('pkpo_loo_minus_one', 'pkpo_centered'):
  shifted = pkpo_jax.ADVANTAGES[name](ascending + 100, k=k)
  np.testing.assert_allclose(shifted, pkpo_jax.ADVANTAGES[name](ascending, k=k), **same)

# %% [markdown]
# ## From $k = 1$ to $k = n$

# %%
figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
for axis, name, ks in zip(
  axes, ('pkpo_loo_minus_one', 'pkpo_centered'), ((1, 2, 4, 8), (1, 2, 4, 7)), strict=True
):
  for color_k, j in zip((1, 2, 4, 8), ks, strict=True):
    values = pkpo_jax.ADVANTAGES[name](ascending, k=j)
    axis.plot(range(n), values, color=style.k_color(color_k), marker='o', label=f'k = {j}')
  axis.axhline(0, color='black', linewidth=0.8)
  axis.set(title=name, xlabel='reward of the sample', ylabel='advantage')
  axis.set_xticks(range(n), ascending)
  axis.legend()
display(figure)

# %% [markdown]
# The larger $k$, the more the best sample alone counts; at $k = n$ no other gets anything. At
# $k = 1$ both are RLOO, reward minus the mean of the others, which is what the paper trains with
# for pass@1. `pkpo_centered` needs $k < n$.

# %%
for name in ('pkpo_loo_minus_one', 'pkpo_centered'):
  at_1 = pkpo_jax.ADVANTAGES[name](ascending, k=1)
  np.testing.assert_allclose(at_1, pkpo_jax.rloo(ascending), **same)
at_n = pkpo_jax.pkpo_loo_minus_one(ascending, k=n)
assert (at_n[:-1] == 0).all() and np.isclose(at_n[-1], n * (ascending[-1] - ascending[-2]))

# %% [markdown]
# ## Right or wrong
#
# For rewards in $\{0, 1\}$ only the number $c$ of right samples matters. Every right sample gets
# $A = n \binom{n-c}{k-1} / \binom nk$ from `pkpo_loo_minus_one`, wrong ones 0.

# %%
n, k = 16, 8
counts = np.arange(1, n)
binary = (np.arange(n) < counts[:, None]).astype(np.float32)  # c ones, then zeros
closed_form = [n * comb(n - c, k - 1) / comb(n, k) for c in counts]
values = pkpo_jax.pkpo_loo_minus_one(binary, k=k)
np.testing.assert_allclose(values[:, 0], closed_form, **same)
assert (values[:, -1] == 0).all()

names = ['pkpo_loo_minus_one', 'pkpo_centered', 'passk_analytical', 'rloo', 'grpo']
figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
for name in names:
  values = pkpo_jax.ADVANTAGES[name](binary, k=k)
  for axis, sample in zip(axes, (0, -1), strict=True):
    axis.plot(counts, values[:, sample], **style.method(name))
axes[0].set(title='a right sample', ylabel='advantage')
axes[1].set(title='a wrong sample', ylabel='advantage')
for axis in axes:
  axis.set_xlabel(f'right samples c of n = {n}')
figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
figure.suptitle(f'Advantages of right and wrong samples, k = {k}')
display(figure)

# %% [markdown]
# Hard prompts (small $c$) get the signal. From $c > n - k + 1$ on, $k$ draws are sure to hold two
# right answers: there is nothing left to gain, and `pkpo_loo_minus_one` is 0.
#
# ## Ties
#
# Equal rewards get equal advantages to the last bit, and a group of equal rewards gives no signal.

# %%
easy = pkpo_jax.pkpo_loo_minus_one(binary, k=k)[counts > n - k + 1]
assert len(easy) and (easy == 0).all()
tied = jnp.array([0.3, 0.1, 0.3, 0.7, 0.3, 0.1])
for name in ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered', 'passk_analytical'):
  values = pkpo_jax.ADVANTAGES[name](tied, k=3)
  assert len({float(x) for x in values[tied == tied[0]]}) == 1, name
  print(f'{name:>20}', *(f'{x:8.4f}' for x in values))
for name in ('pkpo_loo_minus_one', 'pkpo_centered', 'passk_analytical'):
  assert (pkpo_jax.ADVANTAGES[name](jnp.full(6, 0.3), k=3) == 0).all(), name

# %% [markdown]
# ## Unbiased, by enumeration
#
# No sampling: a softmax policy over four arms, $n = 4$ draws, all $4^4$ outcomes with their
# probabilities. The exact gradient comes from another enumeration, of the $k$ draws in the
# definition, $\nabla\, \mathrm{max@}k = \mathbb{E}\,[\max_j g(x_j) \sum_j \nabla \log p(x_j)]$.
# The sums below are float64; the kernels compute in float32.

# %%
logits = np.array([0.3, -0.5, 0.8, 0.1])
arm_rewards = np.array([0.5, -0.75, 1.25, 1.0])
p = np.exp(logits) / np.exp(logits).sum()
grad_log_p = np.eye(len(p)) - p  # [arm, logit]
n = 4


def outcomes_of(num_draws):
  return np.array(list(itertools.product(range(len(p)), repeat=num_draws)))


def exact_gradient(k):
  draws = outcomes_of(k)
  return (p[draws].prod(axis=1) * arm_rewards[draws].max(axis=1)) @ grad_log_p[draws].sum(axis=1)


def expected_gradient(advantage_fn):
  draws = outcomes_of(n)
  advantages = np.asarray(advantage_fn(arm_rewards[draws]), np.float64)
  estimates = (advantages[..., None] * grad_log_p[draws]).mean(axis=1)
  return p[draws].prod(axis=1) @ estimates


for name in ('pkpo', 'pkpo_loo', 'pkpo_loo_minus_one', 'pkpo_centered'):
  ks = range(1, n + 1) if name in ('pkpo', 'pkpo_loo_minus_one') else range(1, n)
  for j in ks:
    found = expected_gradient(lambda r, name=name, j=j: pkpo_jax.ADVANTAGES[name](r, k=j))
    np.testing.assert_allclose(found, exact_gradient(j), rtol=0, atol=1e-6)
  print(f'{name:>20}: unbiased for max@k, k = {ks[0]}..{ks[-1]}')

# %% [markdown]
# ## What goes wrong otherwise
#
# Habits from pass@1 do harm here:
#
# - **Subtracting the mean** of the group from $A_i = n s_i$ shortens the gradient by $1 - k/n$,
#   because the mean holds the sample's own share; at $k = n$ nothing is left. The factor $n/(n-k)$
#   of `pkpo_centered` is the repair.
# - **Re-centring `pkpo_loo_minus_one`** changes the objective to
#   $(1 - \frac kn)\, \mathrm{max@}k + \frac kn\, \mathrm{max@}(k-1)$.
# - **z-scoring** bends the direction: outcomes with a small spread count for more.


# %%
def minus_mean(advantages):
  return advantages - advantages.mean(axis=-1, keepdims=True)


def z_score(advantages):
  return pkpo_jax.grpo(advantages)


k = 3
goal = exact_gradient(k)
candidates = {
  'pkpo_loo_minus_one': lambda r: pkpo_jax.pkpo_loo_minus_one(r, k=k),
  'pkpo, minus its mean': lambda r: minus_mean(pkpo_jax.pkpo(r, k=k)),
  'pkpo_loo_minus_one, minus its mean': lambda r: minus_mean(pkpo_jax.pkpo_loo_minus_one(r, k=k)),
  'pkpo, z-scored': lambda r: z_score(pkpo_jax.pkpo(r, k=k)),
  'pkpo_loo_minus_one, z-scored': lambda r: z_score(pkpo_jax.pkpo_loo_minus_one(r, k=k)),
  'passk_analytical': lambda r: pkpo_jax.passk_analytical(r, k=k),
  'rloo (for max@1)': pkpo_jax.rloo,
  'grpo': pkpo_jax.grpo,
}
found = {name: expected_gradient(fn) for name, fn in candidates.items()}
print(f'Expected gradient against that of max@{k}, n = {n}')
print(f'{"":>35} {"length":>8} {"angle":>8}')
angles = {}
for name, gradient in found.items():
  length = np.linalg.norm(gradient) / np.linalg.norm(goal)
  cosine = gradient @ goal / np.linalg.norm(gradient) / np.linalg.norm(goal)
  angles[name] = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
  print(f'{name:>35} {length:8.3f} {angles[name]:7.1f}°')

close = {'rtol': 0, 'atol': 1e-6}
np.testing.assert_allclose(found['pkpo_loo_minus_one'], goal, **close)
np.testing.assert_allclose(found['pkpo, minus its mean'], (1 - k / n) * goal, **close)
mix = (1 - k / n) * goal + k / n * exact_gradient(k - 1)
np.testing.assert_allclose(found['pkpo_loo_minus_one, minus its mean'], mix, **close)
np.testing.assert_allclose(found['rloo (for max@1)'], exact_gradient(1), **close)
assert angles['pkpo, z-scored'] > 1 and angles['pkpo_loo_minus_one, z-scored'] > 1

# %%
shown = {
  f'exact gradient of max@{k}': (goal, style.BLACK),
  'pkpo_loo_minus_one': (found['pkpo_loo_minus_one'], style.BLUE),
  'pkpo, minus its mean': (found['pkpo, minus its mean'], style.SKY),
  'pkpo_loo_minus_one, minus its mean': (
    found['pkpo_loo_minus_one, minus its mean'],
    style.ORANGE,
  ),
  'pkpo_loo_minus_one, z-scored': (found['pkpo_loo_minus_one, z-scored'], style.VERMILION),
}
figure, axis = style.plt.subplots(figsize=(style.WIDTH_2, style.HEIGHT))
width = 0.8 / len(shown)
for place, (label, (gradient, color)) in enumerate(shown.items()):
  offset = (place - (len(shown) - 1) / 2) * width
  axis.bar(np.arange(len(p)) + offset, gradient, width, label=label, color=color, zorder=2)
axis.axhline(0, color='black', linewidth=0.8)
axis.set_xticks(range(len(p)), [f'arm of reward {x:g}' for x in arm_rewards])
axis.grid(visible=False, axis='x')
axis.set(ylabel='expected gradient in the logit', title=f'Expected gradients, k = {k}, n = {n}')
figure.legend(loc='outside lower center', ncols=2)
display(figure)

# %% [markdown]
# ## Five lines in somebody else's loop
#
# Any loop that has rewards `[prompts, n]` and log-probabilities of the samples can use the kernels.
# Here the loop is PKPO's toy problem: $x \sim \mathcal N(\theta, 0.1^2)$ with reward $x^2$ on
# $[0, 1]$ and 0 beyond. The more draws count, the nearer to the cliff at 1 it pays to aim; the best
# $\theta$ is known. The lines between the marks are all that PKPO adds or changes.

# %%
NUM_PROMPTS, NUM_SAMPLES, SD = 64, 16, 0.1


def reward(x):
  return jnp.where((x >= 0) & (x <= 1), x**2, 0)


def loss_fn(theta, k, key):
  x = jax.lax.stop_gradient(theta + SD * jax.random.normal(key, (NUM_PROMPTS, NUM_SAMPLES)))
  log_probs = -0.5 * ((x - theta) / SD) ** 2
  # --- from here
  rewards = reward(x)
  advantages = pkpo_jax.pkpo_loo_minus_one(rewards, k=k)
  loss = -(advantages * log_probs).mean()
  solved = pkpo_jax.max_at_k(rewards, k).mean()
  return loss, solved
  # --- to here


@jax.jit
def step(theta, k, key):
  (_, solved), gradient = jax.value_and_grad(loss_fn, has_aux=True)(theta, k, key)
  return theta - 0.002 * gradient, solved


print(f'{"k":>3} {"theta":>8} {"best":>8} {"estimate of max@k":>20} {"at the best theta":>20}')
for k in (1, 4, 8):
  theta = jnp.float32(0.5)
  for i in range(600):
    theta, solved = step(theta, k, jax.random.key(i))
  best_theta = gaussian_exact.best_theta(k)
  highest = gaussian_exact.max_at_k(best_theta, k)
  print(f'{k:>3} {theta:8.3f} {best_theta:8.3f} {solved:20.3f} {highest:20.3f}')
  assert abs(theta - best_theta) < 0.02
print('compiled', step._cache_size(), 'time for three values of k')
assert step._cache_size() == 1
