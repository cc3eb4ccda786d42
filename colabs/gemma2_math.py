# %% [markdown]
# # Gemma-2 2B on MATH
#
# What PKPO's section 8 trains, from the weights to pass@$k$ on held-out problems: the cost first,
# then pass@$k$ before, the training, pass@$k$ after, and answers to read. It is meant for a TPU
# runtime of Colab, with adapters (LoRA), as one chip cannot hold the optimizer's state of all
# weights.
#
# You need two things that are not ours to give: the weights of `gemma2-2b-it` with
# `tokenizer.model`, after accepting Gemma's terms, and the files of MATH (`train/` and `test/` of
# the authors' archive, or `train.jsonl` and `test.jsonl` of the 12,000/500 split). Put them on
# Drive and name the folders below. **Without them the notebook takes the same way with the variant
# `:tiny` of the config**: a model of a million random weights, on problems of our own wording. The
# outputs that are stored here are of that; with the real weights nobody has run it yet.

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
  extras = f'{CHECKOUT}[figures,gemma,problems,train]'
  install = [sys.executable, '-m', 'uv', 'pip', 'install', '--quiet', '--python', sys.executable]
  subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', 'uv'], check=True)
  subprocess.run([*install, extras, 'jax[tpu]'], check=True)
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
from IPython.display import display
from matplotlib_inline.backend_inline import set_matplotlib_formats

from configs import gemma2_2b_math
from experiments import style
from experiments.pretrained.evaluations import outcomes
from pkpo_jax.curves import curve
from pkpo_jax.intervals import mean_interval, paired_interval
from pkpo_jax.metrics import read_metrics
from pkpo_jax.samples import read_samples, show
from pkpo_jax.train import train

set_matplotlib_formats('png')  # experiments.style draws without a display: show figures as PNG

# %% [markdown]
# ## What is trained
#
# Everything is in the config; `configs/gemma2_2b_math.py` says what is the paper's and what is our
# choice. On one chip: no `mesh.fsdp`, adapters of rank 16, eight problems of sixteen samples.

# %%
WEIGHTS = ''  # @param {type: "string"}
TOKENIZER = ''  # @param {type: "string"}
MATH = ''  # @param {type: "string"}
REAL = bool(WEIGHTS and TOKENIZER and MATH)

config = gemma2_2b_math.get_config('' if REAL else 'tiny')
if REAL:
  config.policy.weights, config.policy.tokenizer.path = WEIGHTS, TOKENIZER
  config.task.source = MATH
  config.policy.lora_rank = 16
  config.optimizer.learning_rate = 1e-5  # Adapters start at 0: usual rates are larger.
  config.mesh.fsdp = 1
  config.rollout.num_prompts, config.loss.num_microbatches = 8, 8
  config.num_train_steps, config.eval.every, config.checkpoint.every = 100, 50, 50
  config.eval.num_prompts = 64
config.log.tensorboard = False
print(config.task, config.policy, config.rollout, config.advantage, sep='\n')

# %% [markdown]
# ## What it will cost
#
# Memory of both phases and the least time of a step, before anything is paid for. The command needs
# no accelerator; for the real config it compiles for some minutes.

# %%
CHIP = 'v5e'  # @param ["v5e", "v6e", "v5p"]
name = 'gemma2_2b_math.py' if REAL else 'gemma2_2b_math.py:tiny'
changes = ['rollout.num_prompts', 'loss.num_microbatches', 'mesh.fsdp']
changes += ['policy.lora_rank'] if REAL else []
command = [sys.executable, '-m', 'pkpo_jax.plan', f'--config=configs/{name}', f'--chip={CHIP}']
for field in changes:
  part, key = field.split('.')
  command.append(f'--config.{field}={config[part][key]}')
command += [] if REAL else ['--prompt_tokens=256']
print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

# %% [markdown]
# ## Training
#
# `train` writes metrics, samples and checkpoints into a folder. With real weights take one on
# Drive in place of a temporary one: the same call then goes on where a runtime ended, exactly.

# %%
WORKDIR = ''  # @param {type: "string"}
folder = WORKDIR or tempfile.mkdtemp()
quiet = contextlib.nullcontext() if REAL else contextlib.redirect_stderr(io.StringIO())
with quiet, contextlib.redirect_stdout(io.StringIO()):
  state = train(config, folder)
del state
lines = read_metrics(folder)
for line in lines:
  if 'train/reward_mean' in line:
    print(
      f'step {line["step"]:>4}: reward {line["train/reward_mean"]:.3f}, '
      f'prompts without signal {line["train/zero_advantage_share"]:.2f}, '
      f'{line["train/completion_tokens"]:.0f} tokens a completion'
    )

# %% [markdown]
# ## pass@k before and after
#
# On held-out problems, with 95 % intervals over problems, and of the difference in pairs.

# %%
ks = config.eval.ks
last = config.num_train_steps
before, after = (
  np.asarray(curve(outcomes(read_samples(folder, 'eval', step)), ks)) for step in (0, last)
)
intervals = {
  'before': mean_interval(before, jax.random.key(0)),
  'after': mean_interval(after, jax.random.key(0)),
  'difference': paired_interval(after, before, jax.random.key(0)),
}
print(f'{"":<12}', *(f'{f"pass@{k}":>24}' for k in ks))
for label, interval in intervals.items():
  cells = (f'{m:6.3f} [{low:6.3f}, {high:6.3f}]' for m, low, high in zip(*interval, strict=True))
  print(f'{label:<12}', *(f'{cell:>24}' for cell in cells))

figure, axis = style.plt.subplots(figsize=(style.WIDTH_1, style.HEIGHT))
for color, label in ((style.GREY, 'before'), (style.k_color(8), 'after')):
  interval = intervals[label]
  axis.plot(ks, interval.mean, color=color, marker='o', label=label)
  axis.fill_between(ks, interval.low, interval.high, color=color, alpha=0.15, linewidth=0)
axis.set_xscale('log', base=2)
axis.set_xticks(ks, ks)
axis.set(xlabel='k', ylabel='pass@k', title='MATH, held-out problems', ylim=(0, 1))
axis.legend()
display(figure)

# %% [markdown]
# ## Answers
#
# A score of 0 is understood by reading: `malformed` has no final answer, `overlong` was cut off.

# %%
print(show(read_samples(folder, 'eval', last)[:2]))

# %% [markdown]
# ## On
#
# - all weights on several chips, other $k$, the paper's whole table: `docs/accelerators.md`,
#   `python -m experiments.launcher --config=configs/gemma2_2b_math.py`;
# - the adapters for other programs: `python -m pkpo_jax.export WORKDIR FOLDER --adapters`;
# - one page about this run and others: `python -m pkpo_jax.report WORKDIR`.
