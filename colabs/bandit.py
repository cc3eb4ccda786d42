# %% [markdown]
# # The hidden-answer bandit
#
# The smallest problem on which training for pass@1 and for pass@$k$ end in different places. Each
# problem shows a context and hides which arm is right: arm $h$ with chance $q_h$. All samples of a
# problem share $h$, so a policy $\pi$ has
#
# $$\mathrm{pass@}k(\pi) = \sum_h q_h \left(1 - (1 - \pi_h)^k\right).$$
#
# For $k = 1$ the best policy puts everything on the likeliest arm. For larger $k$ it hedges: the
# $k$ samples should not all repeat one guess. This is what pass@$k$ does for a language model that
# cannot know which of several approaches will work (PKPO, Walder & Karkhanis,
# [arXiv 2505.15201](https://arxiv.org/abs/2505.15201); Pass@k Training, Chen et al.,
# [arXiv 2508.10751](https://arxiv.org/abs/2508.10751)). Here the optimum is known for every $k$.
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
import contextlib
import io
import tempfile

import jax
import numpy as np
from IPython.display import Image, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from configs import bandit
from experiments import style
from experiments.toy import train_seeds
from pkpo_jax.evaluation.measure import make_evaluate
from pkpo_jax.intervals import bootstrap_interval
from pkpo_jax.metrics import read_metrics
from pkpo_jax.run import make_run
from pkpo_jax.train import train

set_matplotlib_formats('png')  # experiments.style draws without a display: show figures as PNG

# %% [markdown]
# ## The problem and its best policies
#
# Everything about a run is in its config; `configs/default.py` says what each field means. Where
# $\pi_h > 0$, the best policy for $k > 1$ makes $q_h\, k\, (1 - \pi_h)^{k-1}$ one number: a bit
# more mass is worth the same on every arm it uses.

# %%
config = bandit.get_config()
print(config.task, config.rollout, config.advantage, config.optimizer, sep='\n')
run = make_run(config)
q = run.task.answer_probs[0]  # Every context has the same chances, rotated.
ks = config.eval.ks

figure, axis = style.plt.subplots(figsize=(style.WIDTH_2, style.HEIGHT))
axis.bar(range(len(q)), q, color=style.GREY, alpha=0.5, zorder=2, label='chance to be right, q')
for k in ks:
  best = run.task.best_action_probs(k)[0]
  if k > 1:
    used = best > 1e-9
    worth = q[used] * k * (1 - best[used]) ** (k - 1)
    np.testing.assert_allclose(worth, worth[0], rtol=1e-6)
  axis.plot(range(len(q)), best, color=style.k_color(k), marker='o', label=f'best for pass@{k}')
axis.set(xlabel='arm', ylabel='probability', title='Best policies of context 0', ylim=(0, 1.02))
axis.legend()
display(figure)

# %% [markdown]
# ## Training on pass@1 and on pass@8
#
# `train` is the trainer's one loop: prompts, samples, rewards, advantages, update. The two runs
# differ in one field. They write metrics and checkpoints into a folder, here a temporary one.

# %%
TRAINED_KS = (1, 8)


def make_config(k):
  config = bandit.get_config()
  config.advantage.k = k
  config.eval.ks = TRAINED_KS
  config.eval.num_prompts = 2048
  config.log.tensorboard = False
  return config


params, metrics = {}, {}
with tempfile.TemporaryDirectory() as folder:
  for k in TRAINED_KS:
    workdir = os.path.join(folder, f'k{k}')
    with contextlib.redirect_stderr(io.StringIO()):  # The progress bar.
      params[k] = train(make_config(k), workdir).params
    metrics[k] = read_metrics(workdir)
    print(f'trained on pass@{k}: {config.num_train_steps} steps')

# %% [markdown]
# The policy is known, so its pass@$k$ can be computed exactly; beside it stands the unbiased
# estimate from fresh samples that one would report for a language model, with a bootstrap interval
# over problems.

# %%
best = {k: run.task.best_objective(run.policy, k) for k in ks}
exact = {}
print(
  f'{"trained on":>12} {"measured":>9} {"exact":>8} {"estimate":>9}  {"95 % interval":<18}'
  f'{"optimum":>8}'
)
for trained_k in TRAINED_KS:
  evaluate = make_evaluate(make_run(make_config(trained_k)))
  measured = evaluate(params[trained_k], 0, jax.random.key(1))
  exact[trained_k] = measured.exact['pass@k']
  interval = bootstrap_interval(measured.curves['pass@k'], jax.random.key(2))
  for i, k in enumerate(TRAINED_KS):
    print(
      f'{f"pass@{trained_k}":>12} {f"pass@{k}":>9} {exact[trained_k][i]:8.4f} '
      f'{interval.mean[i]:9.4f}  [{interval.low[i]:.4f}, {interval.high[i]:.4f}]  {best[k]:8.4f}'
    )
for i, k in enumerate(TRAINED_KS):
  assert 0.99 * best[k] < exact[k][i] <= best[k] + 1e-6
assert exact[8][1] > 1.9 * exact[1][1] and exact[1][0] > 1.9 * exact[8][0]

# %% [markdown]
# Each run is within 1 % of the optimum of its own objective, and has there more than 1.9 times
# the value of the other run.

# %%
figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
for axis, k in zip(axes, TRAINED_KS, strict=True):
  for trained_k, lines in metrics.items():
    lines = [line for line in lines if f'train/pass@{k}' in line]
    steps = [line['step'] for line in lines]
    color = style.k_color(trained_k)
    axis.plot(steps, [line[f'train/pass@{k}'] for line in lines], color=color, alpha=0.25)
    values = [line[f'train/pass@{k}_exact'] for line in lines]
    axis.plot(steps, values, color=color, label=f'trained on pass@{trained_k}')
  axis.axhline(best[k], color='black', linestyle='--', linewidth=1, label='optimum')
  axis.set(title=f'pass@{k}', xlabel='step', ylabel=f'pass@{k}')
figure.legend(*axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
figure.suptitle('Exact objective (line) and its estimate from the samples (faint)')
display(figure)

# %% [markdown]
# ## What the policies learned
#
# One guess, or a hedge over the arms that are worth it.

# %%
figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
largest_gap = {}
for axis, k in zip(axes, TRAINED_KS, strict=True):
  learned = np.asarray(run.policy.action_probs(params[k]))
  wanted = run.task.best_action_probs(k)
  largest_gap[k] = np.abs(learned - wanted).max()
  axis.bar(range(len(q)), learned[0], color=style.k_color(k), alpha=0.7, zorder=2, label='learned')
  axis.plot(range(len(q)), wanted[0], 'k_', markersize=11, markeredgewidth=2, label='best')
  axis.set(title=f'trained on pass@{k}, context 0', xlabel='arm', ylabel='probability')
  axis.legend()
display(figure)
for k, gap in largest_gap.items():
  print(f'pass@{k}: largest difference from the best policy, over all contexts and arms: {gap:.3f}')
  assert gap < 0.1

# %% [markdown]
# ## The diagonal
#
# Now every $k$ of 1, 2, 4, 8, 16, with three seeds each. `train_seeds` runs the same training step
# for all seeds at once. In every column, the best row is the one that was trained on that column's
# $k$, and it is within 1 % of the optimum.

# %%
share = np.empty((len(ks), len(ks)))
for row, k_opt in enumerate(ks):
  config.advantage.k = k_opt
  _, curves = train_seeds(config, [0, 1, 2], log_every=config.num_train_steps)
  share[row] = curves[:, -1].mean(axis=0) / [best[k] for k in ks]

print('Share of the optimum, %, mean of 3 seeds')
print(f'{"trained on":>12}', *(f'{f"pass@{k}":>8}' for k in ks))
for k_opt, values in zip(ks, share, strict=True):
  print(f'{f"pass@{k_opt}":>12}', *(f'{100 * value:8.1f}' for value in values))
assert (share.argmax(axis=0) == np.arange(len(ks))).all()
assert (np.diag(share) > 0.99).all()

# %% [markdown]
# ## The committed experiments
#
# The same with more seeds, and other toy problems. Each folder of `experiments/` holds the rows,
# the figure, the commands that make them and what came out.
#
# The diagonal with 20 seeds (`experiments/hidden_answer_diagonal`):

# %%
display(Image(filename='experiments/hidden_answer_diagonal/results/diagonal.png', width=900))

# %% [markdown]
# Continuous rewards: arms that pay little for sure or much with a small chance
# (`experiments/toy_curves`):

# %%
display(Image(filename='experiments/toy_curves/results/safe_risky.png', width=900))

# %% [markdown]
# Changing $k$ while training (`experiments/toy_annealing`):

# %%
display(Image(filename='experiments/toy_annealing/results/annealing.png', width=900))

# %% [markdown]
# How noisy the gradient of one prompt is, for every advantage (`experiments/gradient_snr`):

# %%
display(Image(filename='experiments/gradient_snr/results/snr.png', width=900))
