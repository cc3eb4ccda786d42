"""Weights in both released formats load exactly, compute the same logits, or fail by name."""

import functools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import pytest
from gemma import gm
from gemma.gm.ckpts import _checkpoint as gemma_checkpoint
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from pkpo_jax.models import loading
from pkpo_jax.models.gemma import Gemma

LOCAL, GLOBAL = gm.nn.AttentionType.LOCAL_SLIDING, gm.nn.AttentionType.GLOBAL

SMALL = dict(
  num_embed=24,
  embed_dim=8,
  hidden_dim=12,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  attention_types=(LOCAL, GLOBAL),
  sliding_window_size=8,
  attn_logits_soft_cap=50.0,
  final_logit_softcap=30.0,
  use_post_attn_norm=True,
  use_post_ffw_norm=True,
)
VARIANTS = {
  'grouped': SMALL,
  'equal_heads': SMALL | dict(num_kv_heads=4),
  'one_kv_head': SMALL | dict(num_kv_heads=1),
  'transposed_gating': SMALL | dict(transpose_gating_einsum=True),
}


class TinyGemma2(gm.nn.Transformer):
  """The library's transformer with any config."""

  INFO = gm.nn._transformer.ModelInfo()


def shapes_of(config, dtype=jnp.float32):
  """Returns the parameters of a config as ShapeDtypeStructs."""
  model = TinyGemma2(config=gm.nn.config.TransformerConfig(**config), dtype=dtype)
  params = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 2), jnp.int32))['params']
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params)


def gemma_of(config):
  """Returns the architecture of a config."""
  return Gemma(gm.nn.config.TransformerConfig(**config))


def load(path, config=SMALL, dtype=jnp.float32):
  """Returns what is in a folder as the parameters of a config."""
  return loading.load_params(path, shapes_of(config, dtype), gemma_of(config))


def random_params(like, dtype=np.float32, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(dtype), like)


def as_huggingface(params):
  """Returns the tensors of a Hugging Face file, written from the definition of each module.

  Every tensor is filled entry by entry as torch indexes it: [out, in], heads outside.
  """
  tensors = {
    'model.embed_tokens.weight': params['embedder']['input_embedding'],
    'model.norm.weight': params['final_norm']['scale'],
  }

  def project_in(w):  # [heads, D, H] -> [heads * H, D]
    heads, width, size = w.shape
    out = np.empty((heads * size, width), w.dtype)
    for i in range(heads):
      out[i * size : (i + 1) * size] = w[i].T
    return out

  for i in range(sum(name.startswith('layer_') for name in params)):
    layer, prefix = params[f'layer_{i}'], f'model.layers.{i}.'
    attn, mlp = layer['attn'], layer['mlp']
    if 'qkv_einsum' in attn:
      query, key, value = attn['qkv_einsum']['w']
    else:
      query, (key, value) = attn['q_einsum']['w'], attn['kv_einsum']['w']
    for letter, w in [('q', query), ('k', key), ('v', value)]:
      tensors[f'{prefix}self_attn.{letter}_proj.weight'] = project_in(w)
    out = attn['attn_vec_einsum']['w']
    heads = [out[head].T for head in range(len(out))]  # [D, H] each
    tensors[f'{prefix}self_attn.o_proj.weight'] = np.concatenate(heads, axis=1)
    hidden = mlp['linear'].shape[0]
    for name, w in zip(['gate', 'up'], mlp['gating_einsum'], strict=True):
      tensors[f'{prefix}mlp.{name}_proj.weight'] = w if len(w) == hidden else w.T
    tensors[f'{prefix}mlp.down_proj.weight'] = mlp['linear'].T
    for ours, theirs in [
      ('pre_attention_norm', 'input_layernorm'),
      ('post_attention_norm', 'post_attention_layernorm'),
      ('pre_ffw_norm', 'pre_feedforward_layernorm'),
      ('post_ffw_norm', 'post_feedforward_layernorm'),
    ]:
      tensors[f'{prefix}{theirs}.weight'] = layer[ours]['scale']
  return {name: np.ascontiguousarray(x) for name, x in tensors.items()}


def write_single(tensors, path):
  path.mkdir()
  save_file(tensors, path / 'model.safetensors', metadata={'format': 'pt'})


def write_sharded(tensors, path, num_shards=3):
  path.mkdir()
  weight_map = {}
  for i in range(num_shards):
    file = f'model-{i + 1:05}-of-{num_shards:05}.safetensors'
    names = sorted(tensors)[i::num_shards]
    save_file({name: tensors[name] for name in names}, path / file)
    weight_map |= {name: file for name in names}
  index = {'metadata': {}, 'weight_map': weight_map}
  (path / 'model.safetensors.index.json').write_text(json.dumps(index))


def write_release(params, path, layout='nested'):
  """Saves with the gemma library; its own function makes the layout of the released files."""
  params = jax.tree.map(jnp.asarray, params)
  if layout == 'flat':
    params = gemma_checkpoint._nested_to_flat(params)
    assert 'transformer/layer_0/mlp/linear' in params
  gm.ckpts.save_params(params, path, wait_until_finished=True)


# How parameters become the names of a format, and how those are written.
FORMATS = {
  'release_flat': (lambda params: params, functools.partial(write_release, layout='flat')),
  'release_nested': (lambda params: params, write_release),
  'huggingface_single': (as_huggingface, write_single),
  'huggingface_sharded': (as_huggingface, write_sharded),
}


def assert_equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """Returns (folder, parameters) in a format, written once, to be kept as it is."""

  @functools.cache
  def get(form, variant='grouped', dtype=np.float32):
    params = random_params(shapes_of(VARIANTS[variant]), dtype)
    path = tmp_path_factory.mktemp('weights') / 'checkpoint'
    convert, write = FORMATS[form]
    write(convert(params), path)
    return path, params

  return get


@pytest.fixture
def copied(saved, tmp_path):
  """Returns a copy of such a folder that a test may break."""

  def get(form):
    path, _ = saved(form)
    return Path(shutil.copytree(path, tmp_path / 'copy'))

  return get


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('form', FORMATS)
def test_loads_what_was_written(form, variant, saved):
  path, params = saved(form, variant)
  like = shapes_of(VARIANTS[variant])
  loaded = load(path, VARIANTS[variant])
  assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(loaded))
  assert jax.tree.map(lambda x: (x.shape, x.dtype), loaded) == jax.tree.map(
    lambda x: (x.shape, x.dtype), like
  )
  assert_equal(loaded, params)


@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize(
  'stored, wanted',
  [
    (ml_dtypes.bfloat16, jnp.float32),
    (np.float32, jnp.bfloat16),
    (np.float16, jnp.float32),
    (np.float16, jnp.bfloat16),
    (ml_dtypes.bfloat16, jnp.bfloat16),
  ],
  ids=lambda dtype: np.dtype(dtype).name,
)
def test_casts(form, stored, wanted, saved):
  path, params = saved(form, dtype=stored)
  loaded = load(path, dtype=wanted)
  assert {x.dtype for x in jax.tree.leaves(loaded)} == {jnp.dtype(wanted)}
  assert_equal(loaded, jax.tree.map(lambda x: jnp.asarray(x).astype(wanted), params))


@pytest.mark.parametrize('form', ['release_flat', 'huggingface_sharded'])
def test_loads_onto_a_mesh(form, saved):
  """Heads on one axis, the model's width on the other; norms whole on every device."""
  path, params = saved(form)
  mesh = jax.make_mesh((2, 4), ('tensor', 'fsdp'), axis_types=(AxisType.Auto,) * 2)
  specs = {
    'embedder/input_embedding': PartitionSpec('tensor', 'fsdp'),
    'attn/q_einsum/w': PartitionSpec('tensor', 'fsdp'),
    'attn/kv_einsum/w': PartitionSpec(None, 'tensor', 'fsdp'),
    'attn/attn_vec_einsum/w': PartitionSpec('tensor', None, 'fsdp'),
    'mlp/gating_einsum': PartitionSpec(None, 'fsdp', 'tensor'),
    'mlp/linear': PartitionSpec('tensor', 'fsdp'),
  }

  def with_sharding(at, leaf):
    name = jax.tree_util.keystr(at, simple=True, separator='/')
    spec = next((spec for end, spec in specs.items() if name.endswith(end)), PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

  like = jax.tree.map_with_path(with_sharding, shapes_of(SMALL, jnp.bfloat16))
  loaded = loading.load_params(path, like, gemma_of(SMALL))
  jax.tree.map(lambda x, leaf: x.sharding == leaf.sharding or pytest.fail(), loaded, like)
  query = loaded['layer_1']['attn']['q_einsum']['w']
  assert query.shape == (4, 8, 6)
  assert query.addressable_shards[0].data.shape == (2, 2, 6)
  assert_equal(loaded, jax.tree.map(lambda x: x.astype(jnp.bfloat16), params))


@pytest.mark.parametrize('layout', ['flat', 'nested'])
def test_the_library_reads_the_releases_written_here(layout, saved):
  path, params = saved(f'release_{layout}')
  assert_equal(gm.ckpts.load_params(path), params)


def test_loads_a_release_of_an_older_orbax(saved, tmp_path):
  """One file a tensor, no metadata beside the tree's, as in years before this orbax."""
  _, params = saved('release_flat')
  path = tmp_path / 'checkpoint'
  flat = gemma_checkpoint._nested_to_flat(jax.tree.map(jnp.asarray, params))
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=False)) as checkpointer:
    checkpointer.save(path, args=ocp.args.PyTreeSave(flat))
  for name in ['_CHECKPOINT_METADATA', '_sharding', 'commit_success.txt']:
    (path / name).unlink()
  shutil.rmtree(path / 'array_metadatas')
  assert_equal(load(path), params)


def test_the_vocabulary_is_padded_with_zeros(tmp_path):
  rng = np.random.default_rng(0)
  table = rng.normal(size=(256_000, 2)).astype(ml_dtypes.bfloat16)
  write_single({'model.embed_tokens.weight': table}, tmp_path / 'checkpoint')

  def load_rows(rows):
    architecture = gemma_of(SMALL | dict(num_embed=rows, embed_dim=2))
    like = {'embedder': {'input_embedding': jax.ShapeDtypeStruct((rows, 2), jnp.float32)}}
    loaded = loading.load_params(tmp_path / 'checkpoint', like, architecture)
    return loaded['embedder']['input_embedding']

  padded = load_rows(256_128)
  np.testing.assert_array_equal(padded[:256_000], table.astype(np.float32))
  assert not np.any(padded[256_000:])
  np.testing.assert_array_equal(load_rows(256_000), table.astype(np.float32))
  # No other difference is padding.
  expect_error(
    'model.embed_tokens.weight: expected shape (256064, 2), found (256000, 2)', load_rows, 256_064
  )


def test_the_head_may_be_there_if_it_is_the_embedding(saved, tmp_path):
  _, params = saved('huggingface_single')
  tensors = as_huggingface(params)
  head = tensors['model.embed_tokens.weight'].copy()
  write_single(tensors | {'lm_head.weight': head}, tmp_path / 'tied')
  assert_equal(load(tmp_path / 'tied'), params)
  head[7, 3] += 1
  write_single(tensors | {'lm_head.weight': head}, tmp_path / 'untied')
  load_error(
    tmp_path / 'untied',
    'lm_head.weight: expected model.embed_tokens.weight, which the model ties it to, found another '
    'row 7.',
  )
  write_single(tensors | {'lm_head.weight': head[:-1]}, tmp_path / 'short')
  load_error(tmp_path / 'short', 'lm_head.weight: expected shape (24, 8), ')


def test_reads_one_tensor_at_a_time(saved, monkeypatch):
  """Each parameter is on its device before the next one is read."""
  path, params = saved('huggingface_sharded')
  events, read, place = [], loading._read, loading._place
  monkeypatch.setattr(loading, '_read', lambda *a: events.append('read') or read(*a))
  monkeypatch.setattr(loading, '_place', lambda *a: events.append('place') or place(*a))
  load(path)
  assert events.count('place') == len(jax.tree.leaves(params))
  # Never more reads in a row than parts of the parameter with the most, gate and up.
  assert max(len(run) for run in ' '.join(events).split('place')) <= len(' read read ')


# What is wrong is named.


def expect_error(message, function, *args, error=ValueError):
  with pytest.raises(error, match=re.escape(message)):
    function(*args)


def load_error(path, message, config=SMALL, error=ValueError):
  expect_error(message, load, path, config, error=error)


# One tensor, its transpose of another shape, and the first and the last in order.
TENSORS = {
  'release': (
    'layer_1/mlp/linear',
    (12, 8),
    'embedder/input_embedding',
    'final_norm/scale',
  ),
  'huggingface': (
    'model.layers.1.mlp.down_proj.weight',
    (8, 12),
    'model.embed_tokens.weight',
    'model.norm.weight',
  ),
}


@pytest.mark.parametrize('flaw', ['missing', 'unknown', 'shape', 'dtype', 'two'])
@pytest.mark.parametrize('form', FORMATS)
def test_a_wrong_tensor_is_named(form, flaw, saved, tmp_path):
  convert, write = FORMATS[form]
  name, shape, first, last = TENSORS[form.split('_')[0]]
  tensors = convert(saved(form)[1])
  if 'release' in form:
    tensors = flax.traverse_util.flatten_dict(tensors, sep='/')
  if flaw == 'missing':
    del tensors[name]
    message = f'{name}: expected shape {shape}, found no such tensor.'
  elif flaw == 'unknown':
    tensors[f'{name}_extra'] = tensors[name]
    message = f'{name}_extra: expected no such tensor, found one of shape {shape}.'
  elif flaw == 'shape':
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    message = f'{name}: expected shape {shape}, found {shape[::-1]}.'
  elif flaw == 'dtype':
    tensors[name] = tensors[name].astype(np.int8)
    message = f'{name}: expected one of float32, bfloat16, float16, found '
  else:
    del tensors[last], tensors[name]
    tensors[first] = tensors[first][:-1]
    message = f'{first}: expected shape (24, 8), found (23, 8).'
  if 'release' in form:
    tensors = flax.traverse_util.unflatten_dict(tensors, sep='/')
  write(tensors, tmp_path / 'checkpoint')
  load_error(tmp_path / 'checkpoint', f'{tmp_path}/checkpoint: {message}')


@pytest.mark.parametrize('form', FORMATS)
def test_another_model_is_named(form, saved):
  path, _ = saved(form)
  table = 'embedder/input_embedding' if 'release' in form else 'model.embed_tokens.weight'
  load_error(path, f'{table}: expected shape (24, 16), found (24, 8).', SMALL | dict(embed_dim=16))
  three = SMALL | dict(attention_types=(LOCAL, GLOBAL, LOCAL))
  kind = 'layer_2/attn/attn_vec_einsum/w'
  kind = kind if 'release' in form else 'model.layers.2.self_attn.o_proj.weight'
  load_error(path, f'{kind}: expected shape', three)
  one = SMALL | dict(attention_types=(LOCAL,))
  load_error(path, ': expected no such tensor, found one of shape', one)


def test_equal_heads_are_no_grouped_heads(saved):
  path, _ = saved('release_flat', 'equal_heads')
  load_error(path, 'layer_0/attn/kv_einsum/w: expected shape (2, 2, 8, 6), found no such tensor.')
  path, _ = saved('huggingface_single', 'equal_heads')
  load_error(path, 'layers.0.self_attn.k_proj.weight: expected shape (12, 8), found (24, 8).')


@pytest.mark.parametrize('size', [4, 100, -7])
def test_a_truncated_file_is_named(size, copied):
  path = copied('huggingface_sharded')
  file = path / 'model-00002-of-00003.safetensors'
  file.write_bytes(file.read_bytes()[:size])
  load_error(path, f'{file}: cannot be read: ')


def test_a_missing_shard_is_named(copied):
  path = copied('huggingface_sharded')
  file = path / 'model-00002-of-00003.safetensors'
  file.unlink()
  load_error(
    path,
    f'{file}: expected by model.safetensors.index.json for model.layers.0.input_layernorm.weight',
    error=FileNotFoundError,
  )


def test_a_wrong_index_is_named(copied):
  path = copied('huggingface_sharded')
  file = path / 'model.safetensors.index.json'
  index = json.loads(file.read_text())
  name = 'model.norm.weight'
  wrong = {name: 'model-00001-of-00003.safetensors'}
  assert index['weight_map'][name] != wrong[name]
  file.write_text(json.dumps({'weight_map': index['weight_map'] | wrong}))
  load_error(path, f'{path / wrong[name]}: {name}: expected here by {file.name}, found no such')
  file.write_text(json.dumps({'weight_map': index['weight_map'] | {name: 'elsewhere'}}))
  load_error(path, f'{path / "elsewhere"}: expected by {file.name}', error=FileNotFoundError)
  for text in ['{"weight_map": ', '{}', '[]', '{"weight_map": {"a": 3}}']:
    file.write_text(text)
    load_error(path, f'{file}: expected ')


def test_another_model_type_is_named(copied):
  path = copied('huggingface_single')
  (path / 'config.json').write_text('{"model_type": "llama"}')
  load_error(path, f"{path / 'config.json'}: model_type: expected 'gemma2', found 'llama'.")


@pytest.mark.parametrize('layout', ['flat', 'nested'])
def test_a_damaged_release_is_named(layout, tmp_path):
  path = tmp_path / 'checkpoint'
  # Large enough to be stored apart from the metadata.
  large = SMALL | dict(embed_dim=64, hidden_dim=256)
  write_release(random_params(shapes_of(large)), path, layout)
  largest = max(path.rglob('d/*'), key=lambda file: file.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  with pytest.raises(ValueError, match=rf'{path}: \w+(/\w+)+: cannot be read: '):
    load(path, large)
  (path / '_METADATA').write_text('{')
  load_error(path, f'{path}: expected an orbax checkpoint, found metadata that cannot be read.')


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path):
  load_error(tmp_path / 'nowhere', f'{tmp_path}/nowhere: expected', error=FileNotFoundError)
  (tmp_path / 'pytorch_model.bin').touch()
  load_error(tmp_path, "of a gemma release), found ['pytorch_model.bin'].")


def test_what_the_model_does_not_have_is_named(saved):
  path, _ = saved('huggingface_single')
  like = {'layer_0': {'lora': {'a': jax.ShapeDtypeStruct((2, 3), jnp.float32)}}}
  message = 'layer_0/lora/a: expected a parameter of gemma2, found another.'
  expect_error(message, loading.load_params, path, like, gemma_of(SMALL))


def test_importing_it_is_light():
  """In a fresh interpreter: nothing is loaded that only runs with released weights install."""
  program = 'import sys, pkpo_jax.models.loading; print(*sys.modules)'
  run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
  heavy = {'gemma', 'safetensors', 'tensorflow', 'torch', 'transformers'}
  assert not heavy & set(run.stdout.split())
