"""What was trained as Hugging Face and PEFT store it, and back."""

import functools
import io
import json
import pathlib
import shutil
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece
import tokenizers
from safetensors.numpy import load_file

from benchmarks.parity import FIXTURES
from configs import default
from pkpo_jax.errors import FieldError, MissingDataError, WorkdirError
from pkpo_jax.evaluate import restore
from pkpo_jax.export import export, main
from pkpo_jax.models import PRESETS, architecture_of
from pkpo_jax.models.config_file import ConfigFile, read_config
from pkpo_jax.models.loading import load_params
from pkpo_jax.models.lora import Lora
from pkpo_jax.models.recipes import LINEAR
from pkpo_jax.models.saving import save_model
from pkpo_jax.models.transformer import Transformer
from pkpo_jax.run import make_run
from pkpo_jax.sharding import make_mesh
from pkpo_jax.tokenizers import HuggingFaceTokenizer
from pkpo_jax.train import train
from pkpo_jax.workdir import read_config as read_run

VARIANTS = sorted(path.name for path in FIXTURES.iterdir())


def load(variant, dtype):
  """Returns the model of a fixture and its weights."""
  architecture = architecture_of(None, str(FIXTURES / variant))
  model = Transformer(architecture, jnp.dtype(dtype))
  like = jax.eval_shape(model.init, jax.random.key(0))['weights']
  return model, load_params(FIXTURES / variant, like, architecture)


def assert_equal_bits(found, expected):
  """Asserts that two trees have the same numbers of the same dtypes."""
  dtypes = lambda tree: jax.tree.map(lambda x: x.dtype, tree)
  assert dtypes(found) == dtypes(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('variant', VARIANTS)
def test_a_folder_goes_in_and_out_bit_for_bit(variant, tmp_path):
  model, weights = load(variant, 'float32')
  config = read_config(FIXTURES / variant).fields
  folder = save_model(tmp_path / 'out', model.architecture, weights, 'bfloat16', config=config)
  there, here = (load_file(x / 'model.safetensors') for x in (FIXTURES / variant, folder))
  assert_equal_bits(here, there)
  written = read_config(folder).fields
  differ = {
    name for name in config.keys() | written.keys() if config.get(name) != written.get(name)
  }
  assert differ <= {'dtype', 'torch_dtype'} and written['torch_dtype'] == 'bfloat16'


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('variant', VARIANTS)
def test_weights_go_out_and_in_bit_for_bit(variant, dtype, tmp_path):
  model, weights = load(variant, dtype)
  # What is in the fixtures could be kept in bfloat16; the norms are not.
  weights = jax.tree.map(lambda x: (np.float32(1.001) * x).astype(x.dtype), weights)
  folder = save_model(tmp_path / 'out', model.architecture, weights)
  assert_equal_bits(load_params(folder, weights, model.architecture), weights)
  for name, array in load_file(folder / 'model.safetensors').items():
    is_norm = name.endswith('norm.weight')
    assert array.dtype.name == ('float32' if is_norm else dtype)
    assert not is_norm or (array.astype(jnp.bfloat16) != array).any()
  assert read_config(folder).fields['torch_dtype'] == dtype


@pytest.mark.parametrize('variant', ['gemma3_text', 'llama_tied'])
def test_shards(variant, tmp_path):
  model, weights = load(variant, 'bfloat16')
  architecture = model.architecture
  whole = load_file(save_model(tmp_path / 'one', architecture, weights) / 'model.safetensors')
  size = sum(x.nbytes for x in whole.values())
  largest = max(x.nbytes for x in whole.values())
  # Of exactly its size there is one file; of a byte less there are more.
  exact = save_model(tmp_path / 'exact', architecture, weights, shard_bytes=size)
  assert {path.name for path in exact.iterdir()} == {'config.json', 'model.safetensors'}
  for shard_bytes in (size - 1, largest, 1):
    folder = save_model(tmp_path / str(shard_bytes), architecture, weights, shard_bytes=shard_bytes)
    assert_equal_bits(load_params(folder, weights, architecture), weights)
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    assert index['metadata'] == {'total_size': size}
    files = sorted({*index['weight_map'].values()})
    assert [*files, 'model.safetensors.index.json'] == sorted(
      path.name for path in folder.glob('model*')
    )
    assert files == [f'model-{i + 1:05}-of-{len(files):05}.safetensors' for i in range(len(files))]
    sizes = [sum(x.nbytes for x in load_file(folder / file).values()) for file in files]
    if shard_bytes == 1:
      assert len(files) == len(whole)
    else:
      assert 1 < len(files) < len(whole) and max(sizes) <= shard_bytes
    assert sum(sizes) == size


def test_one_update_of_adapters_is_in_memory_at_a_time(tmp_path):
  model, weights = load('llama', 'float32')
  lora = Lora(1, 1.0, tuple(LINEAR))
  sizes = model.architecture.linear_sizes
  adapters = lora.init(jax.random.key(0), len(model.windows), sizes)
  made = []

  def watched(update):
    assert all(reference() is None for reference in made)
    made.append(weakref.ref(array := update()))
    return array

  updates = lora.updates(adapters)
  updates = {name: functools.partial(watched, update) for name, update in updates.items()}
  save_model(tmp_path / 'out', model.architecture, weights, updates=updates)
  assert len(made) == 7 * len(model.windows)


@pytest.mark.parametrize('source', [*PRESETS, *VARIANTS])
def test_a_config_of_our_own_is_read_back(source):
  if source in PRESETS:
    architecture = architecture_of(source, None)
  else:
    architecture = architecture_of(None, str(FIXTURES / source))
  file = ConfigFile('config.json', json.loads(json.dumps(architecture.config_json)))
  assert type(architecture).from_file(file).fields == architecture.fields


def small_config(**policy):
  """Returns the config of a run of two steps on demonstrations."""
  config = default.get_config()
  config.num_train_steps = 2
  config.task = default.task('drills', kind='add', num_train=8, num_held_out=4, num_examples=0)
  config.policy = default.policy('language_model', **policy)
  config.policy.max_new_tokens = 4
  config.rollout.num_prompts, config.rollout.num_samples, config.advantage.k = 2, 2, 1
  config.eval.num_prompts, config.eval.num_samples, config.eval.ks = 2, 2, (1,)
  config.advantage.name, config.rollout.source = 'reinforce', 'demonstrations'
  config.optimizer.learning_rate = 0.05
  config.eval.every, config.log.tensorboard = 2, False
  return config


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """Returns a run that trained adapters of a tiny Llama."""
  workdir = tmp_path_factory.mktemp('runs') / 'lora'
  train(small_config(preset='llama_micro', lora_rank=2), workdir)
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
  save_model(tmp_path / 'base', run.policy.architecture, params['weights'])
  return load_file(tmp_path / 'base' / 'model.safetensors')


def test_a_cast_of_all_weights(workdir, tmp_path):
  export(workdir, tmp_path / 'whole')
  export(workdir, tmp_path / 'half', dtype='bfloat16')
  whole, half = (load_file(tmp_path / x / 'model.safetensors') for x in ('whole', 'half'))
  assert read_config(tmp_path / 'half').fields['torch_dtype'] == 'bfloat16'
  for name, array in whole.items():
    np.testing.assert_array_equal(half[name], array.astype(half[name].dtype))
    assert half[name].dtype.name == 'bfloat16'


def test_a_run_in_bfloat16_with_a_frozen_embedding(tmp_path):
  architecture = architecture_of('llama_micro', None)
  start = Transformer(architecture, jnp.bfloat16).init(jax.random.key(5))['weights']
  config = {**architecture.config_json, 'eos_token_id': 1, 'max_position_embeddings': 777}
  base = save_model(tmp_path / 'base', architecture, start, config=config)
  (base / 'generation_config.json').write_text('{"eos_token_id": 1}')
  workdir = tmp_path / 'run'
  fields = dict(preset=None, weights=str(base), dtype='bfloat16', freeze_embedding=True)
  train(small_config(**fields), workdir)
  folder = tmp_path / 'out'
  assert export(workdir, folder) == 2
  assert read_config(folder).fields == {**config, 'torch_dtype': 'bfloat16'}
  assert (folder / 'generation_config.json').read_text() == '{"eos_token_id": 1}'
  run = make_run(read_run(workdir))
  _, params = restore(run, make_mesh(run.settings.mesh), workdir, 'latest')
  weights = run.policy.model.weights(params)
  assert_equal_bits(load_params(folder, weights, architecture), weights)
  # All but the embedding has moved; norms are no longer numbers of bfloat16.
  assert_equal_bits(weights['embedder'], start['embedder'])
  moved = [(x != y).any() for x, y in zip(*map(jax.tree.leaves, (weights, start)), strict=True)]
  assert sum(moved) == len(moved) - 1
  norm = weights['final_norm']['scale']
  assert (norm.astype(jnp.bfloat16) != norm).any()

  base.rename(tmp_path / 'moved')
  needed = 'its config.json and the weights that were not trained, found none'
  with pytest.raises(MissingDataError, match=f'policy.weights: {base}: expected .*{needed}'):
    export(workdir, tmp_path / 'again')


def changed(workdir, tmp_path, warm_start=None, **policy):
  """Returns a copy of a run with other fields of its policy."""
  copy = tmp_path / 'changed'
  shutil.copytree(workdir, copy)
  config = json.loads((copy / 'config.json').read_text())
  config['policy'] |= policy
  config['warm_start'] = warm_start
  (copy / 'config.json').write_text(json.dumps(config))
  return copy


def test_only_what_is_needed_has_to_be_there(workdir, tmp_path, capsys):
  gone = str(tmp_path / 'gone')
  run = changed(workdir, tmp_path, warm_start=gone, weights=gone)
  with pytest.raises(MissingDataError, match='for the weights that were not trained, found none'):
    export(run, tmp_path / 'whole')
  export(run, tmp_path / 'adapters', adapters=True)
  assert f'policy.weights: {gone} is gone' in capsys.readouterr().err
  export(workdir, tmp_path / 'expected', adapters=True)
  assert_equal_bits(
    *(load_file(tmp_path / x / 'adapter_model.safetensors') for x in ('adapters', 'expected'))
  )


@pytest.mark.parametrize('changes', [{}, {'hidden_size': 128}, {'rope_theta': 1e4}])
def test_a_config_beside_the_tokenizer_is_taken_if_it_is_of_the_model(changes, workdir, tmp_path):
  write_tokenizer(tmp_path / 'tokenizer.json')
  own = architecture_of('llama_micro', None).config_json
  config = {**own, 'eos_token_id': 1, 'max_position_embeddings': 777, **changes}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  tokenizer = {'name': 'huggingface', 'path': str(tmp_path)}
  export(changed(workdir, tmp_path, tokenizer=tokenizer), tmp_path / 'out')
  ids = {'bos_token_id': 2, 'eos_token_id': [1, 3], 'pad_token_id': 0}
  expected = {**own, **ids} if changes else config
  assert read_config(tmp_path / 'out').fields == {**expected, 'torch_dtype': 'float32'}


def test_the_files_of_a_tokenizer_of_another_name(workdir, tmp_path):
  """Beside it is another vocabulary."""
  folder = tmp_path / 'tokenizer'
  folder.mkdir()
  write_tokenizer(folder / 'tok.json')
  (folder / 'tokenizer.model').write_text('another')
  (folder / 'chat_template.jinja').write_text('the own one')
  template = tmp_path / 'mine.jinja'
  template.write_text('{% for message in messages %}{{ message.content }}{% endfor %}')
  tokenizer = {
    'name': 'huggingface',
    'path': str(folder / 'tok.json'),
    'chat_template': str(template),
  }
  run, out = changed(workdir, tmp_path, tokenizer=tokenizer), tmp_path / 'out'
  export(run, out)
  assert {path.name for path in out.iterdir()} == {
    *('config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json'),
    'chat_template.jinja',
  }
  assert (out / 'tokenizer.json').read_text() == (folder / 'tok.json').read_text()
  assert (out / 'chat_template.jinja').read_text() == template.read_text()
  there, here = (
    HuggingFaceTokenizer(**x)
    for x in ({key: x for key, x in tokenizer.items() if key != 'name'}, {'path': str(out)})
  )
  assert here.encode('1 + 2') == there.encode('1 + 2') and here.stop_ids == there.stop_ids
  chat = [{'role': 'user', 'content': 'x'}]
  assert here.chat_template.prompt(chat) == there.chat_template.prompt(chat) == 'x'


def test_a_sentencepiece_model_of_another_name(workdir, tmp_path):
  path = tmp_path / 'my_gemma.model'
  ids = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3)
  options = dict(model_type='char', hard_vocab_limit=False, add_dummy_prefix=False)
  texts, written = iter(['0123456789+-= '] * 9), io.BytesIO()
  train_sentencepiece = sentencepiece.SentencePieceTrainer.train
  train_sentencepiece(
    sentence_iterator=texts, model_writer=written, minloglevel=2, **ids, **options
  )
  path.write_bytes(written.getvalue())
  run = changed(workdir, tmp_path, tokenizer={'name': 'sentencepiece', 'path': str(path)})
  export(run, tmp_path / 'out')
  assert (tmp_path / 'out' / 'tokenizer.model').read_bytes() == path.read_bytes()


def test_the_ids_of_characters(workdir, tmp_path):
  export(workdir, tmp_path / 'out')
  fields = read_config(tmp_path / 'out').fields
  ids = {name: fields[f'{name}_token_id'] for name in ('bos', 'eos', 'pad')}
  assert ids == {'bos': 2, 'eos': 1, 'pad': 0}


def write_tokenizer(file):
  """Writes a tokenizer of digits and signs, and beside it which of its tokens are special."""
  special = ['<pad>', '</s>', '<s>', '<|im_end|>']
  vocab = {token: i for i, token in enumerate([*special, '?', *'0123456789+-= '])}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='?'))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  tokenizer.add_special_tokens(special)
  tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
    single='<s> $A', special_tokens=[('<s>', 2)]
  )
  tokenizer.save(str(file))
  names = {'bos_token': '<s>', 'eos_token': '</s>', 'pad_token': '<pad>'}
  (file.parent / 'tokenizer_config.json').write_text(json.dumps(names))


def test_bad_input(workdir, tmp_path):
  with pytest.raises(FieldError, match='folder: expected one that does not exist'):
    export(workdir, tmp_path)
  with pytest.raises(FieldError, match="dtype: expected one of .*got 'int8'"):
    export(workdir, tmp_path / 'out', dtype='int8')
  with pytest.raises(FieldError, match="dtype: expected none with adapters, .*got 'bfloat16'"):
    export(workdir, tmp_path / 'out', dtype='bfloat16', adapters=True)
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
