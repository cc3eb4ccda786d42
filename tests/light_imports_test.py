"""Modules that stand for others while something is imported."""

import importlib
import subprocess
import sys
import types

import pytest

from pkpo_jax.light_imports import stand_in


def test_it_is_found_and_gone_afterwards_even_after_an_error():
  module = types.ModuleType('no_such_module')
  with pytest.raises(ZeroDivisionError), stand_in('no_such_module', module):
    assert importlib.import_module('no_such_module') is module
    1 / 0  # noqa: B018
  with pytest.raises(ModuleNotFoundError):
    importlib.import_module('no_such_module')


def test_none_is_no_module(monkeypatch):
  monkeypatch.delitem(sys.modules, 'colorsys', raising=False)
  with stand_in('colorsys', None), pytest.raises(ModuleNotFoundError):
    importlib.import_module('colorsys')
  assert importlib.import_module('colorsys').__spec__


def test_what_was_imported_before_stays():
  with stand_in('types', types.ModuleType('types')):
    assert importlib.import_module('types') is types
  assert sys.modules['types'] is types


def test_metrics_leave_out_what_only_buckets_need():
  program = """
import sys
import pkpo_jax.metrics
print('google.cloud.storage' in sys.modules)
try:
  import google.cloud.storage
  print(google.cloud.storage.Client.__name__)
except ImportError:
  print('Client')
"""
  run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  assert run.stdout.split() == ['False', 'Client']
