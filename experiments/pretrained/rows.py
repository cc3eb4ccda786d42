"""Rows that come from a Python without jax, in the files that experiments.results reads."""

import csv
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess


def _git(*arguments):
  run = subprocess.run(['git', *arguments], capture_output=True, text=True, check=True)
  return run.stdout.strip()


def write(path, rows, command, config, seed, wall_seconds):
  """Writes rows as `experiments.results.write_rows`, and which packages stood in for jax."""
  packages = ['torch', 'transformers', 'tokenizers', 'sentencepiece', 'gguf']
  packages += ['peft'] if importlib.util.find_spec('peft') else []  # Only some rows need it.
  versions = ' '.join(f'{name} {importlib.metadata.version(name)}' for name in packages)
  commit = _git('rev-parse', '--short', 'HEAD')
  not_results = ['.', ':(exclude,glob)experiments/**/results/**']
  is_changed = _git('status', '--porcelain', '--untracked-files=no', '--', *not_results)
  provenance = {
    'command': command,
    'config': json.dumps(config),
    'seed': 'none' if seed is None else seed,
    'commit': f'{commit}+dirty' if is_changed else commit,
    'hardware': f'{os.cpu_count()} CPUs, {platform.machine()}',
    'jax': f'none; {versions}',
    'date': datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d'),
    'wall_seconds': f'{wall_seconds:.1f}',
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('w', newline='', encoding='utf-8') as file:
    file.writelines(f'# {key}: {value}\n' for key, value in provenance.items())
    writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  print(path.read_text(encoding='utf-8'))
