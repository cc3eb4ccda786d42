"""Whether plain pip finds versions for each extra within a limit: nothing is installed.

python tools/check_extras.py [--limit=900] [extra ...]

Takes a package index and minutes, so no test runs it. Each extra is resolved by itself, at the
newest versions, without constraints.txt.
"""

import argparse
import pathlib
import subprocess
import sys
import time
import tomllib
import venv

ROOT = pathlib.Path(__file__).parent.parent
# Of those who work on the project; they have uv and constraints.txt.
_OWN = ('dev', 'test')


def main() -> None:
  """Resolves the extras one after another, and says how long each took."""
  extras = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['optional-dependencies']
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('extras', nargs='*', metavar='extra', help=f'of {", ".join(extras)}')
  parser.add_argument('--limit', type=float, default=900, help='seconds for one extra')
  parser.add_argument('--venv', type=pathlib.Path, default=ROOT / 'build' / 'extras')
  options = parser.parse_args()
  unknown = sorted(set(options.extras) - set(extras))
  if unknown:
    parser.error(f'extra: expected some of {sorted(extras)}, got {unknown[0]!r}')
  venv.create(options.venv, with_pip=True, clear=True)
  python = str(options.venv / 'bin' / 'python')
  subprocess.run([python, '-m', 'pip', 'install', '--quiet', '--upgrade', 'pip'], check=True)
  failed = []
  for extra in options.extras or [name for name in extras if name not in _OWN]:
    command = [python, '-m', 'pip', 'install', '--dry-run', '--quiet', f'{ROOT}[{extra}]']
    start, result = time.monotonic(), 'resolved'
    try:
      subprocess.run(command, check=True, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
      result = f'NOT RESOLVED within {options.limit:g} s'
    except subprocess.CalledProcessError as error:
      result = f'FAILED: {error.stderr.strip().splitlines()[-1]}'
    failed += [extra] if result != 'resolved' else []
    print(f'{extra}: {time.monotonic() - start:.0f} s, {result}', flush=True)
  if failed:
    sys.exit(f'failed: {", ".join(failed)}')


if __name__ == '__main__':
  main()
