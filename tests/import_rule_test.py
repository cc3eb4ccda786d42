"""Imports go one way, the kernels need jax alone, and what is imported exists."""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import pkpo_jax

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'pkpo_jax'

# A module imports from its own layer and from those above it. A new module, or package, goes in
# the highest layer that its imports allow; modules that are named here need not exist.
LAYERS = [
  {
    'errors',
    'keys',
    'light_imports',
    'own_code',
    'packing',
    'pieces',
    'processes',
    'samples',
    'score_files',
    'typing',
  }
  | {'watch_main'},
  {'types', 'weights', 'group_ks', 'groups', 'ranks'},
  {'estimators', 'intervals', 'advantages', 'reweighting', 'schedules', 'losses', 'votes'}
  | {'curves'},
  {'integrations', 'settings', 'watch', 'workdir'},
  {'chat', 'data', 'metrics', 'models', 'optimizer', 'progress', 'sampling', 'sharding', 'workers'}
  | {'checkpoints', 'stopping', 'tally', 'tokenizers', 'trackers'},
  {'policies', 'pretrained', 'tasks'},
  {'grading', 'prepare', 'sample_writer', 'train_step'},
  {'diagnostics', 'parts', 'rollouts'},
  {'flags', 'run'},
  {'evaluation', 'planning'},
  {'session'},
  {'train'},
  {'evaluate', 'export', 'main', 'plan', 'runs', 'score'},
  {'reporting'},
  {'report'},
]
# What `import pkpo_jax` loads: without flax, without settings.
KERNELS = {'__init__', 'errors', 'typing', 'weights', 'groups', 'ranks', 'estimators', 'advantages'}
KERNELS |= {'group_ks', 'intervals', 'losses', 'reweighting', 'schedules'}
KERNEL_LIBRARIES = {'jax', 'jaxtyping', 'numpy', 'scipy'} | sys.stdlib_module_names
OUTSIDE = {'benchmarks', 'colabs', 'configs', 'examples', 'experiments', 'tests'}
HEAVY = {'absl', 'clu', 'flax', 'gemma', 'grain', 'kauldron', 'matplotlib', 'ml_collections'}
HEAVY |= {
  'optax',
  'orbax',
  'scipy',
  'tensorboardX',
  'tensorflow',
  'tensorflow_datasets',
  'torch',
  'tqdm',
}

MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob('*.py'))


def room_of(relative_path):
  """Returns the name a file is filed under: its package, or its own name."""
  return relative_path.removesuffix('.py').split('/')[0]


def imports_of(source):
  """Returns the dotted names of all imports, those inside functions too."""
  names = set()
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, 'imports are absolute'
      # `from pkpo_jax import groups` names a module, `from pkpo_jax import pkpo` the package's own.
      is_package = node.module == 'pkpo_jax'
      names |= {f'{node.module}.{x.name}' for x in node.names} if is_package else {node.module}
  return names


def violations(room, source):
  """Returns what a file of this room imports against the rule."""
  level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
  if room not in level and room != '__init__':
    return [f'{room} is in no layer']
  found = []
  for name in imports_of(source):
    top, _, inner = name.partition('.')
    if top in OUTSIDE:
      found.append(f'{name}: the package imports nothing that uses it')
    elif top != 'pkpo_jax':
      if room in KERNELS and top not in KERNEL_LIBRARIES:
        found.append(f'{name}: kernels need jax alone')
    else:
      imported = inner.split('.')[0] or '__init__'
      if imported not in level:
        found.append(f'{name}: import it from its module, which has to be in a layer')
      elif room in KERNELS and imported not in KERNELS:
        found.append(f'{name}: no kernel')
      elif room != '__init__' and level[imported] > level[room]:
        found.append(f'{name}: in a later layer than {room}')
  return found


@pytest.mark.parametrize('path', MODULES)
def test_imports_go_one_way(path):
  assert not violations(room_of(path), (PACKAGE / path).read_text())


@pytest.mark.parametrize(
  'room, line',
  [
    ('weights', 'import flax'),
    ('weights', 'from pkpo_jax.settings import expect'),
    ('advantages', 'def f():\n  from optax import adam'),
    ('estimators', 'from pkpo_jax import settings'),
    ('losses', 'from pkpo_jax.types import Rollout'),
    ('schedules', 'import ml_collections'),
    ('groups', 'from pkpo_jax import losses'),
    ('optimizer', 'import pkpo_jax.train_step'),
    ('train', 'from pkpo_jax import main'),
    ('train', 'from pkpo_jax import pkpo'),
    ('tasks', 'from configs import default'),
    ('evaluate', 'import experiments.figures'),
    ('no_such_room', 'import jax'),
  ],
)
def test_the_rule_sees_a_violation(room, line):
  assert len(violations(room, line)) == 1


def file_of(dotted):
  """Returns the file of a module or package of the repository, or None."""
  path = ROOT / dotted.replace('.', '/')
  return next((x for x in (path.with_suffix('.py'), path / '__init__.py') if x.exists()), None)


@functools.cache
def names_bound_in(path):
  """Returns every name that a file defines, assigns or imports, at whatever depth."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
      names.add(node.id)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names |= {alias.asname or alias.name.split('.')[0] for alias in node.names}
  return names


def missing_names(source):
  """Returns what a file imports by name from the repository's modules and they have not."""
  missing = []
  for node in ast.walk(ast.parse(source)):
    if not isinstance(node, ast.ImportFrom) or not (ROOT / node.module.split('.')[0]).is_dir():
      continue
    path = file_of(node.module)
    bound = names_bound_in(path) if path else set()
    bound |= set(dir(pkpo_jax)) if node.module == 'pkpo_jax' else set()  # It imports a star.
    missing += [
      f'{node.module}.{alias.name}'
      for alias in node.names
      if alias.name not in bound | {'*'} and not file_of(f'{node.module}.{alias.name}')
    ]
  return missing


@pytest.mark.parametrize('room', ['pkpo_jax', *sorted(OUTSIDE | {'tools'})])
def test_imported_names_exist(room):
  """Of files too that only a process of its own loads, or only where a peer is installed."""
  paths = sorted((ROOT / room).rglob('*.py'))
  assert paths
  missing = {str(path): missing_names(path.read_text()) for path in paths}
  assert not {path: names for path, names in missing.items() if names}


@pytest.mark.parametrize(
  'line, missing',
  [
    ('from pkpo_jax.curves import no_such_name', ['pkpo_jax.curves.no_such_name']),
    ('def f():\n  from pkpo_jax.no_such_module import x', ['pkpo_jax.no_such_module.x']),
    ('from pkpo_jax import pkpo, no_such_advantage', ['pkpo_jax.no_such_advantage']),
    ('from pkpo_jax.tasks import grades, base', []),
  ],
)
def test_a_missing_name_is_seen(line, missing):
  assert missing_names(line) == missing


def test_gemma_has_one_importer():
  importers = {
    path
    for path in MODULES
    if any(name.split('.')[0] == 'gemma' for name in imports_of((PACKAGE / path).read_text()))
  }
  assert importers == {'models/gemma.py'}


def test_import_of_the_trainer_leaves_out_what_only_gemma_needs():
  program = """
import sys
import pkpo_jax.train
from pkpo_jax.models import architecture_of
architecture_of('llama_micro', None)
heavy = {'gemma', 'gguf', 'kauldron', 'safetensors', 'sentencepiece', 'tensorflow', 'tokenizers'}
print(*sorted(heavy & set(sys.modules)))
"""
  run = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert not run.stdout.split()


def test_import_of_the_kernels_is_light():
  """In a fresh interpreter: what importing pkpo_jax loads beyond jax is none of these."""
  program = f"""
import sys, jax
with_jax = set(sys.modules)
import pkpo_jax
pkpo_jax.ADVANTAGES
print(*(name for name in {HEAVY!r} if name in set(sys.modules) - with_jax))
print(*(name for name in sys.modules if name.startswith('pkpo_jax.')))
"""
  run = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, check=True
  )
  heavy, own = run.stdout.splitlines()
  assert not heavy
  assert {name.split('.')[1] for name in own.split()} <= KERNELS
