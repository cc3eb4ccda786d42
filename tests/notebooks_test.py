"""Notebooks are made from their sources and have outputs; `make notebooks-check` executes them."""

import re
from pathlib import Path

import nbformat
import pytest

from colabs import build

SOURCES = build.find_sources()
# A path of the machine that made the notebook, such as a warning or a traceback holds.
MACHINE_PATH = re.compile(r'(?<![\w.])/(?:home|root|tmp|usr|opt|var|work|Users)/|site-packages')


def read(name):
  return nbformat.read(SOURCES[name].with_suffix('.ipynb'), as_version=4)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def texts_of(output):
  """Returns the readable parts of an output; images are base64, where anything may occur."""
  data = output.get('data', {})
  return [output.get('text', ''), *(data[kind] for kind in data if kind.startswith('text/'))]


def test_every_notebook_has_a_source():
  assert set(SOURCES) >= {'bandit', 'gemma2_math', 'own_loop', 'pretrained', 'transforms'}
  assert {path.stem for path in build.HERE.glob('*.ipynb')} == set(SOURCES)


@pytest.mark.parametrize('name', SOURCES)
def test_cells_are_those_of_the_source(name):
  notebook, source = read(name), build.read_source(SOURCES[name])
  nbformat.validate(notebook)
  assert build.find_difference(notebook, source) is None
  assert [cell.id for cell in notebook.cells] == [cell.id for cell in source.cells]
  assert notebook.metadata == build.METADATA
  # jupytext loses no code: every line of the source that is not a comment is in a cell.
  code = '\n'.join(cell.source for cell in code_cells(notebook)).splitlines()
  written = [line for line in SOURCES[name].read_text().splitlines() if line[:1] not in ('', '#')]
  assert [line for line in code if line[:1] not in ('', '#')] == written


@pytest.mark.parametrize('name', SOURCES)
def test_every_cell_ran_in_order_without_errors(name):
  cells = code_cells(read(name))
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert {'stream', 'display_data'} <= {output.output_type for output in outputs}
  assert any('image/png' in output.get('data', {}) for output in outputs)
  for output in outputs:
    assert output.output_type != 'error'
    assert output.get('name') != 'stderr'
    for text in texts_of(output):
      assert not MACHINE_PATH.search(text) and str(build.ROOT) not in text
    # A figure that nobody drew shows as its size alone.
    assert ('image/png' in output.get('data', {})) == (output.output_type == 'display_data')
  assert all('execution' not in cell.metadata for cell in cells)


@pytest.mark.parametrize('name', SOURCES)
def test_first_cell_installs_on_colab_alone(name, monkeypatch, tmp_path):
  first = code_cells(read(name))[0].source
  monkeypatch.chdir(tmp_path)
  exec(first, {})
  assert Path.cwd() == tmp_path
  (tmp_path / 'colabs').mkdir()
  monkeypatch.chdir(tmp_path / 'colabs')
  exec(first, {})
  assert Path.cwd() == tmp_path
  monkeypatch.setitem(build.sys.modules, 'google.colab', build)
  with pytest.raises(ValueError, match='REPOSITORY'):
    exec(first, {})


@pytest.mark.parametrize('name', SOURCES)
def test_what_the_text_names_is_there(name):
  """Links, and paths of the repository between backticks; other addresses are not asked for."""
  text = '\n'.join(cell.source for cell in read(name).cells if cell.cell_type == 'markdown')
  links = re.findall(r'\]\(([^)]+)\)', text)
  paths = re.findall(r'`((?:benchmarks|configs|docs|examples|experiments|pkpo_jax)/[\w/.]+)`', text)
  for link in links:
    if not link.startswith('https://'):
      paths.append(f'colabs/{link}')
  assert links or paths
  assert [path for path in paths if not (build.ROOT / path).exists()] == []


def test_a_changed_cell_is_found():
  path = SOURCES['transforms']
  source = build.read_source(path)
  changed = build.read_source(path)
  changed.cells[3].source += '\n'
  assert 'cell 3' in build.find_difference(changed, source)
  changed.cells[3].source = source.cells[3].source
  assert build.find_difference(changed, source) is None
  del changed.cells[-1]
  assert 'cells' in build.find_difference(changed, source)


@pytest.mark.parametrize(
  'code, message',
  [('1 / 0', 'ZeroDivisionError'), ('import warnings; warnings.warn("odd")', 'stderr')],
)
def test_a_notebook_with_an_error_or_a_warning_is_refused(code, message, tmp_path):
  path = tmp_path / 'bad.py'
  path.write_text(f'# %%\n{code}\n')
  with pytest.raises(build.NotebookError, match=message):
    build.make(path, check=False)
  assert not path.with_suffix('.ipynb').exists()


def test_a_good_notebook_is_written_the_same_every_time(tmp_path):
  path = tmp_path / 'good.py'
  path.write_text('# %% [markdown]\n# Text\n\n# %%\nimport configs\n\nprint(configs.__name__)\n')
  made = []
  for _ in range(2):
    build.make(path, check=False)
    made.append(path.with_suffix('.ipynb').read_bytes())
  assert made[0] == made[1]
  assert nbformat.reads(made[0].decode(), as_version=4).cells[1].outputs[0].text == 'configs\n'
  build.make(path, check=True)
  path.write_text(path.read_text().replace('Text', 'Other text'))
  with pytest.raises(build.NotebookError, match='out of date'):
    build.make(path, check=True)


def test_unknown_name_names_the_choices(capsys):
  with pytest.raises(SystemExit):
    build.main(['no_such_notebook'])
  assert 'choose from' in capsys.readouterr().err
