"""Exported models and adapters in transformers and PEFT: the same logits as here.

First in the library's own Python, which writes folders and logits below FOLDER, then in one that
has torch, transformers and peft:

  python -m experiments.pretrained.check_export write FOLDER
  TORCH_PYTHON -m experiments.pretrained.check_export compare FOLDER

Random weights of the micro presets and of the fixtures of every architecture, with adapters of
rank 2 on all matrices, once merged into the weights, in files of 20 kB, and once beside them. The
second step writes results/export.csv.
"""

import argparse
import pathlib
import time

import numpy as np

FOLDER = pathlib.Path(__file__).parent
FIXTURES = pathlib.Path('tests/fixtures/huggingface')
PRESETS = ('gemma2_micro', 'gemma3_micro', 'llama_micro')
SEED, LENGTH, RANK, SHARD_BYTES = 0, 24, 2, 20_000


def write(folder: pathlib.Path) -> None:
  """Exports every model, with adapters that are not zero, and keeps its logits."""
  import jax  # the Python with torch need not have it
  import jax.numpy as jnp

  from pkpo_jax.models import architecture_of, loading, saving
  from pkpo_jax.models.lora import Lora
  from pkpo_jax.models.recipes import LINEAR
  from pkpo_jax.models.transformer import Transformer

  variants = {name: None for name in PRESETS}
  variants |= {path.name: str(path) for path in sorted(FIXTURES.iterdir())}
  for name, source in variants.items():
    architecture = architecture_of(name if source is None else None, source)
    model = Transformer(architecture, jnp.float32, lora=Lora(RANK, 4.0, tuple(LINEAR)))
    key = jax.random.key(SEED)
    params = jax.tree.map(lambda x: x, model.init(key))
    if source is not None:
      params['weights'] = loading.load_params(source, params['weights'], architecture)
    leaves, tree = jax.tree.flatten(params['adapters'])
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params['adapters'] = jax.tree.unflatten(tree, noisy)
    tokens = jax.random.randint(key, (2, LENGTH), 1, architecture.num_embeddings)
    positions = jnp.broadcast_to(jnp.arange(LENGTH), (2, 1, LENGTH))
    hidden, _ = model(params, tokens[:, None], positions)
    plain = {'weights': params['weights']}
    base, _ = Transformer(architecture, jnp.float32)(plain, tokens[:, None], positions)
    updates = model.lora.updates(params['adapters'])
    model_and_weights = architecture, params['weights']
    saving.save_model(folder / name / 'base', *model_and_weights)
    saving.save_model(
      folder / name / 'merged', *model_and_weights, updates=updates, shard_bytes=SHARD_BYTES
    )
    path = str((folder / name / 'base').absolute())
    saving.save_adapters(folder / name / 'adapters', model.lora, params['adapters'], path)
    np.savez(
      folder / name / 'logits.npz',
      tokens=tokens,
      adapted=model.logits(params, hidden)[:, 0],
      base=model.logits(plain, base)[:, 0],
    )
    print(f'{name}: written')


def compare(folder: pathlib.Path) -> None:
  """Loads every folder with transformers and PEFT and writes the largest differences."""
  import torch  # only this step needs these
  from peft import PeftModel
  from transformers import AutoModelForCausalLM

  from experiments.pretrained import rows

  start, found = time.monotonic(), []
  for path in sorted(folder.iterdir()):
    ours = np.load(path / 'logits.npz')

    def difference(model, name, ours=ours):
      with torch.no_grad():
        theirs = model(torch.tensor(ours['tokens'], dtype=torch.long)).logits.numpy()
      return float(np.abs(theirs - ours[name]).max())

    load = lambda name, path=path: AutoModelForCausalLM.from_pretrained(
      path / name, dtype=torch.float32, attn_implementation='eager'
    )
    base = load('base')
    row = {'model': path.name, 'class': type(base).__name__, 'base': difference(base, 'base')}
    row['merged'] = difference(load('merged'), 'adapted')
    row['peft'] = difference(PeftModel.from_pretrained(base, path / 'adapters'), 'adapted')
    row['effect_of_adapters'] = float(np.abs(ours['adapted'] - ours['base']).max())
    row['largest_logit'] = float(np.abs(ours['adapted']).max())
    found.append({key: f'{x:.3g}' if isinstance(x, float) else x for key, x in row.items()})
  rows.write(
    FOLDER / 'results' / 'export.csv',
    found,
    command='python -m experiments.pretrained.check_export compare FOLDER',
    config={
      'rank': RANK,
      'alpha': 4.0,
      'length': LENGTH,
      'dtype': 'float32',
      'shard_bytes': SHARD_BYTES,
    },
    seed=SEED,
    wall_seconds=time.monotonic() - start,
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('step', choices=['write', 'compare'])
  parser.add_argument('folder', type=pathlib.Path)
  options = parser.parse_args()
  {'write': write, 'compare': compare}[options.step](options.folder)


if __name__ == '__main__':
  main()
