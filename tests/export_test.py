"""What was trained as Hugging Face and PEFT store it, and back."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.parity import FIXTURES, load
from configs import default
from pkpo_jax.errors import FieldError, WorkdirError
from pkpo_jax.evaluate import restore
from pkpo_jax.export import export, main
from pkpo_jax.models import PRESETS, architecture_of
from pkpo_jax.models.config_file import ConfigFile, read_config
from pkpo_jax.models.loading import load_params
from pkpo_jax.models.saving import save_model
from pkpo_jax.run import make_run
from pkpo_jax.sharding import make_mesh
from pkpo_jax.train import train
from pkpo_jax.workdir import read_config as read_run

VARIANTS = sorted(path.name for path in FIXTURES.iterdir())


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_folder_goes_in_and_out_bit_for_bit(variant, tmp_path):
  model, params = load(FIXTURES / variant)
  weights = model.weights(params)
  folder = save_model(
    tmp_path / 'out', model.architecture, weights, 'float32', beside=[FIXTURES / variant]
  )
  there, here = (load_file(x / 'model.safetensors') for x in (FIXTURES / variant, folder))
  assert there.keys() == here.keys()
  for name, array in there.items():
    np.testing.assert_array_equal(here[name], array, err_msg=name)
  known, written = (read_config(x).fields for x in (FIXTURES / variant, folder))
  differ = {name for name in known.keys() | written.keys() if known.get(name) != written.get(name)}
  assert differ <= {'dtype', 'torch_dtype'} and written['torch_dtype'] == 'float32'
  loaded = load_params(folder, weights, model.architecture)
  jax.tree.map(np.testing.assert_array_equal, loaded, weights)


@pytest.mark.parametrize('source', [*PRESETS, *VARIANTS])
def test_a_config_of_our_own_is_read_back(source):
  if source in PRESETS:
    architecture = architecture_of(source, None)
  else:
    architecture = architecture_of(None, str(FIXTURES / source))
  file = ConfigFile('config.json', json.loads(json.dumps(architecture.config_json)))
  assert type(architecture).from_file(file).fields == architecture.fields


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Returns a run of two steps that trained adapters of a tiny Llama."""
  config = default.get_config()
  config.num_train_steps = 2
  config.task = default.task('drills', kind='add', num_train=8, num_held_out=4, num_examples=0)
  config.policy = default.policy('language_model', preset='llama_micro', lora_rank=2)
  config.policy.max_new_tokens = 4
  config.rollout.num_prompts, config.rollout.num_samples, config.advantage.k = 2, 2, 1
  config.eval.num_prompts, config.eval.num_samples, config.eval.ks = 2, 2, (1,)
  config.advantage.name, config.rollout.source = 'reinforce', 'demonstrations'
  config.optimizer.learning_rate = 0.05
  config.eval.every, config.log.tensorboard = 2, False
  workdir = tmp_path_factory.mktemp('runs') / 'lora'
  train(config, workdir)
  return workdir


def test_adapters_alone_and_added_in(workdir, tmp_path, capsys):
  main([str(workdir), str(tmp_path / 'whole')])
  assert f'has step 2 of {workdir}: config.json, model.safetensors' in capsys.readouterr().out
  main([str(workdir), str(tmp_path / 'adapters'), '--adapters'])
  config = json.loads((tmp_path / 'adapters' / 'adapter_config.json').read_text())
  assert (config['r'], config['lora_alpha'], config['peft_type']) == (2, 2.0, 'LORA')
  assert config['target_modules'][:4] == ['q_proj', 'k_proj', 'v_proj', 'o_proj']
  adapters = load_file(tmp_path / 'adapters' / 'adapter_model.safetensors')
  assert len(adapters) == 2 * 2 * 7

  # The run's weights are those of its seed, without training.
  whole = load_file(tmp_path / 'whole' / 'model.safetensors')
  base = _base(workdir, tmp_path)
  is_moved = False
  for name, array in base.items():
    stem = f'base_model.model.{name.removesuffix(".weight")}'
    if f'{stem}.lora_A.weight' in adapters:
      update = adapters[f'{stem}.lora_B.weight'] @ adapters[f'{stem}.lora_A.weight']  # alpha = r
      is_moved |= bool(np.abs(update).max() > 1e-3)
      array = array + update
    np.testing.assert_allclose(whole[name], array, atol=1e-6, err_msg=name)
  assert is_moved and whole.keys() == base.keys()


def _base(workdir, tmp_path):
  """Returns the stored tensors of the weights that a run's adapters go with."""
  run = make_run(read_run(workdir))
  _, params = restore(run, make_mesh(run.settings.mesh), workdir, 'latest')
  save_model(tmp_path / 'base', run.policy.architecture, params['weights'], 'float32')
  return load_file(tmp_path / 'base' / 'model.safetensors')


def test_bfloat16(workdir, tmp_path):
  export(workdir, tmp_path / 'whole')
  export(workdir, tmp_path / 'half', dtype='bfloat16')
  whole, half = (load_file(tmp_path / x / 'model.safetensors') for x in ('whole', 'half'))
  assert read_config(tmp_path / 'half').fields['torch_dtype'] == 'bfloat16'
  for name, array in whole.items():
    np.testing.assert_array_equal(half[name], array.astype(half[name].dtype))
    assert half[name].dtype.name == 'bfloat16'


def test_bad_input(workdir, tmp_path):
  with pytest.raises(FieldError, match='folder: expected one that does not exist'):
    export(workdir, tmp_path)
  with pytest.raises(FieldError, match="dtype: expected one of .*got 'int8'"):
    export(workdir, tmp_path / 'out', dtype='int8')
  with pytest.raises(FileNotFoundError, match='7'):
    export(workdir, tmp_path / 'out', checkpoint=7)
  with pytest.raises(WorkdirError, match='nothing'):
    export(tmp_path / 'nothing', tmp_path / 'out')
  changed = tmp_path / 'changed'
  shutil.copytree(workdir, changed)
  config = json.loads((changed / 'config.json').read_text())
  config['policy']['lora_rank'] = None
  (changed / 'config.json').write_text(json.dumps(config))
  with pytest.raises(FieldError, match='adapters: expected a run with policy.lora_rank'):
    export(changed, tmp_path / 'out', adapters=True)
  config['policy'] = {'name': 'softmax_bandit'}
  config['task'] = {'name': 'hidden_answer'}
  (changed / 'config.json').write_text(json.dumps(config))
  with pytest.raises(WorkdirError, match="policy.name: expected a language model, found 'softmax"):
    export(changed, tmp_path / 'out')
  assert not pathlib.Path(tmp_path / 'out').exists()
