"""Shows what a policy wrote: the samples that a run or an evaluation kept.

python -m pkpo_jax.samples runs/maze_k8 --split=train --step=200 --verdict=wrong,malformed
"""

import argparse
import json
import pathlib
import signal
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal

import numpy as np

SPLITS = ('train', 'eval')
LEFT_OUT = 'left_out'  # The field of a line that is no sample; see `SampleWriter`.
_MAX_CHARACTERS = 1000  # Of a text that is shown whole; a longer one loses its middle.
_MAX_LISTED = 12  # Steps, or problems, that a message lists one by one.


def read_samples(
  source: str | pathlib.Path,
  split: str = 'eval',
  step: int | Literal['last'] | None = None,
  verdicts: Collection[str] | None = None,
  prompt_id: int | None = None,
) -> list[dict[str, Any]]:
  """Returns samples that were kept, in the order of the file.

  Args:
    source: the workdir of a run, a folder that `pkpo_jax.evaluate` wrote, or a file of samples.
    split: 'train' or 'eval', for a workdir.
    step: a training step, 'last' or None for all. An evaluation comes before the step.
    verdicts: only samples with one of these, as `label` gives them; None takes all.
    prompt_id: only samples of this problem; None takes all.

  Returns:
    Dicts, one a sample, with these fields:
      step, split: where it comes from.
      prompt_id, group, sample: the problem, the place of its prompt in the step (a problem may be
        drawn twice), and the place among the samples of that prompt.
      prompt, completion: the texts; of a bandit, numbers.
      num_tokens, is_truncated: of the completion, its stop token too; True where it was cut off.
      verdict, answer: of the task's verifier, such as 'malformed'; else None.
      reward, success: the reward, and whether the sample is right; None where the judge failed,
        and success also where samples are not right or wrong.
      advantage, k: what the sample was trained with; of a training step only.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is damaged, or has no such samples; says what there is.
  """
  path = samples_path(source, split)
  samples = [record for _, record in lines_of(path) if LEFT_OUT not in record]
  return _picked(_of_step(samples, step, path), verdicts, prompt_id, path)


def label(sample: dict[str, Any]) -> str | None:
  """Returns a sample's verdict; without a verifier, 'right' or 'wrong', or None if it is neither.

  >>> label({'verdict': 'overlong', 'success': False}), label({'verdict': None, 'success': True})
  ('overlong', 'right')
  """
  if sample['verdict'] is not None or sample['success'] is None:
    return sample['verdict']
  return 'right' if sample['success'] else 'wrong'


def problem_names(samples: Sequence[dict[str, Any]]) -> list[str]:
  """Returns for each sample of an evaluation the name of its problem.

  That is prompt_id; but prompt_id/group where ids come with several groups, as those do whose
  problems differ in what the prompt does not show.

  >>> problem_names([{'prompt_id': 3, 'group': 0}, {'prompt_id': 4, 'group': 1}])
  ['3', '4']
  >>> problem_names([{'prompt_id': 3, 'group': 0}, {'prompt_id': 3, 'group': 1}])
  ['3/0', '3/1']
  """
  pairs = [(sample['prompt_id'], sample['group']) for sample in samples]
  if len(set(pairs)) == len({prompt_id for prompt_id, _ in pairs}):
    return [str(prompt_id) for prompt_id, _ in pairs]
  return [f'{prompt_id}/{group}' for prompt_id, group in pairs]


def show(samples: Sequence[dict[str, Any]], full: bool = False) -> str:
  """Returns samples for people to read, each prompt once.

  Texts of more than 1000 characters lose their middle, unless `full`.

  >>> print(show([{'step': 0, 'prompt_id': 7, 'group': 0, 'sample': 0, 'prompt': 'ab=',
  ...   'completion': 'ac', 'num_tokens': 3, 'is_truncated': False, 'verdict': None,
  ...   'answer': None, 'reward': 0.5, 'success': None}]))
  prompt 7
    | ab=
    sample 0: reward 0.5, 3 tokens
      | ac
  """
  blocks, last = [], None
  for sample in samples:
    group = sample['step'], sample['group']
    if group != last:
      separator = [''] if blocks else []
      blocks += [*separator, f'prompt {sample["prompt_id"]}', _quote(sample['prompt'], '  ', full)]
      last = group
    blocks.append(f'  sample {sample["sample"]}: {", ".join(_facts(sample))}')
    blocks.append(_quote(sample['completion'], '    ', full))
  return '\n'.join(blocks)


def samples_path(source: str | pathlib.Path, split: str) -> pathlib.Path:
  """Returns the file of samples that `source` means; see `read_samples`.

  Raises:
    FileNotFoundError: if there is none.
  """
  source = pathlib.Path(source)
  candidates = source, source / 'samples.jsonl', source / 'samples' / f'{split}.jsonl'
  path = next((path for path in candidates if path.is_file()), None)
  if path is None and not source.exists():
    raise FileNotFoundError(f'{source}: expected the workdir of a run, found no such folder.')
  if path is None:
    there = [name for name in SPLITS if (source / 'samples' / f'{name}.jsonl').is_file()]
    instead = (
      f'--split={there[0]} is there.' if there else 'A run keeps them if log.max_samples_mib > 0.'
    )
    raise FileNotFoundError(f'{candidates[-1]}: no such file of samples. {instead}')
  return path


def lines_of(path: pathlib.Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Yields each line of a file and what it says, but for a last line without an end.

  Such a line is being written, or was when a run was killed.

  Raises:
    ValueError: if a line is damaged; names it.
  """
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      if not line.endswith(b'\n'):
        return
      try:
        record = json.loads(line)
      except ValueError as error:
        raise ValueError(f'{path}, line {number}: expected JSON ({error}).') from error
      yield line, record


def _of_step(
  samples: list[dict[str, Any]], step: int | str | None, path: pathlib.Path
) -> list[dict[str, Any]]:
  """Returns the samples of a step."""
  if step is None:
    return samples
  steps = sorted({sample['step'] for sample in samples})
  if step == 'last' and steps:
    step = steps[-1]
  if step not in steps:
    raise ValueError(f'{path}: no samples of step {step}; {_listed("step", steps)}.')
  return [sample for sample in samples if sample['step'] == step]


def _picked(
  samples: list[dict[str, Any]],
  verdicts: Collection[str] | None,
  prompt_id: int | None,
  path: pathlib.Path,
) -> list[dict[str, Any]]:
  """Returns the samples with these verdicts of this problem; raises ValueError if there are none.

  All are returned where nothing is asked for, be they none.
  """
  if prompt_id is not None:
    ids = sorted({sample['prompt_id'] for sample in samples})
    if prompt_id not in ids:
      raise ValueError(f'{path}: no samples of prompt {prompt_id}; {_listed("prompt", ids)}.')
    samples = [sample for sample in samples if sample['prompt_id'] == prompt_id]
  if verdicts is not None:
    there = _counts(samples) or 'none with a verdict'
    samples = [sample for sample in samples if label(sample) in verdicts]
    if not samples:
      raise ValueError(f'{path}: no samples that are {" or ".join(verdicts)}; there are {there}.')
  return samples


def _listed(noun: str, numbers: Sequence[int]) -> str:
  """Returns which numbers there are, in words."""
  if not numbers:
    return 'there are none'
  if len(numbers) > _MAX_LISTED:
    return f'there are {len(numbers)} {noun}s from {numbers[0]} to {numbers[-1]}'
  verb, plural = ('are', 's') if numbers[1:] else ('is', '')
  return f'there {verb} {noun}{plural} {", ".join(map(str, numbers))}'


def _counts(samples: Sequence[dict[str, Any]]) -> str:
  """Returns how many samples have each verdict, the most frequent first."""
  counts = Counter(label(sample) for sample in samples)
  del counts[None]
  return ', '.join(f'{count} {name}' for name, count in counts.most_common())


def _summary(samples: Sequence[dict[str, Any]]) -> str:
  """Returns what the samples of one step are like, in one line."""
  rewards = [sample['reward'] for sample in samples if sample['reward'] is not None]
  num_prompts = len({sample['group'] for sample in samples})
  are_few = ' kept' if samples[0]['split'] == 'train' else ''
  facts = [f'{len(samples)} samples of {num_prompts} prompts{are_few}: {_counts(samples)}']
  facts[0] = facts[0].removesuffix(': ')
  if rewards:
    facts.append(f'mean reward {np.mean(rewards):.4f}')
  facts.append(f'mean length {np.mean([sample["num_tokens"] for sample in samples]):.1f} tokens')
  num_truncated = sum(sample['is_truncated'] for sample in samples)
  if num_truncated:
    facts.append(f'{num_truncated} cut off')
  if 'k' in samples[0]:
    ks = [sample['k'] for sample in samples]
    facts.append(f'k = {ks[0]}' if min(ks) == max(ks) else f'k = {min(ks)} to {max(ks)}')
  return '; '.join(facts)


def _facts(sample: dict[str, Any]) -> list[str]:
  """Returns what is known of a sample beside its text."""
  facts = [] if label(sample) is None else [label(sample)]
  if sample['reward'] is not None:
    facts.append(f'reward {sample["reward"]:g}')
  if sample.get('advantage') is not None:
    facts.append(f'advantage {sample["advantage"]:.4g}')
  facts.append(f'{sample["num_tokens"]} token{"s" * (sample["num_tokens"] != 1)}')
  if sample['is_truncated']:
    facts.append('cut off')
  if sample['answer'] not in (None, sample['completion'].strip()):
    facts.append(f'answer {shorten(printable(str(sample["answer"])))!r}')
  return facts


def _quote(text: str, indent: str, full: bool) -> str:
  """Returns a text with a bar before each line."""
  lines = printable(text if full else shorten(text)).split('\n')
  return '\n'.join(f'{indent}| {line}'.rstrip() for line in lines)


def shorten(text: str, limit: int = _MAX_CHARACTERS) -> str:
  """Returns a text without its middle if it is long, and how much that is."""
  if len(text) <= limit:
    return text
  half = limit // 2
  return f'{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}'


def printable(text: str) -> str:
  """Returns a text that a terminal shows and does not obey."""
  return ''.join(c if c.isprintable() or c in '\n\t' else repr(c)[1:-1] for c in text)


def _step(word: str) -> int | str:
  if word != 'last' and not word.isdecimal():
    raise argparse.ArgumentTypeError(f"expected a number or 'last', got {word!r}")
  return word if word == 'last' else int(word)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog='python -m pkpo_jax.samples', description=__doc__.splitlines()[0]
  )
  parser.add_argument(
    'workdir', help='folder of a run or of an evaluation, or a file of samples', type=pathlib.Path
  )
  parser.add_argument('--split', choices=SPLITS, default='eval', help='of a run (default: eval)')
  parser.add_argument('--step', type=_step, default='last', help="a step, or 'last' (the default)")
  parser.add_argument(
    '--verdict',
    type=lambda words: words.split(','),
    help='such as wrong,malformed',
  )
  parser.add_argument('--prompt_id', type=int, help='of one problem; all if not given')
  parser.add_argument('--num', type=int, help='the most to show (default: 10; with --json, all)')
  parser.add_argument('--full', action='store_true', help='show long texts whole')
  parser.add_argument('--json', action='store_true', help='print JSON lines instead')
  args = parser.parse_args(argv)
  if args.num is not None and args.num < 1:
    parser.error('--num: expected at least 1.')
  return args


def main(argv: Sequence[str] | None = None) -> None:
  """Prints samples of a step, with a summary; evenly spaced ones where there are too many."""
  args = _parse(argv)
  try:
    path = samples_path(args.workdir, args.split)
    records = [record for _, record in lines_of(path)]
    kept = [record for record in records if LEFT_OUT not in record]
    samples = _of_step(kept, args.step, path)
    picked = _picked(samples, args.verdict, args.prompt_id, path)
  except (OSError, ValueError) as error:
    sys.exit(str(error))
  num = min(len(picked), args.num or (len(picked) if args.json else 10))
  shown = [picked[i * len(picked) // num] for i in range(num)]
  if args.json:
    for sample in shown:
      print(json.dumps(sample))
    return
  step = samples[0]['step']
  print(f'{path}: {_listed("step", sorted({sample["step"] for sample in kept}))}')
  print(f'step {step}: {_summary(samples)}')
  for record in records:
    if LEFT_OUT in record and record['step'] == step:
      print(f'{record[LEFT_OUT]} more were not kept, as there was no room (log.max_samples_mib)')
  print(f'\n{show(shown, args.full)}')
  if num < len(picked):
    print(f'\n{num} of {len(picked)} samples, evenly spaced; --num shows more')


if __name__ == '__main__':
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # As in `... | head`.
  main()
