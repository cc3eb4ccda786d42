"""What math-verify gets right of a table of answers: python -m benchmarks.math_agreement.

Each line of tests/fixtures/math_pairs.jsonl is a right answer, an answer (or a whole completion)
and a label by the meaning of the two: equal, unequal or hostile, that is one that must not pass. A
verdict agrees if it is right just for equal ones. Results go to OUTDIR/math_agreement.csv, .md;
tests/math_verifier_test.py holds a new version of math-verify to them.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Sequence

from benchmarks import common
from benchmarks.common import Row
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.math.verifier import MathVerifier

PAIRS = common.FOLDER.parent / 'tests' / 'fixtures' / 'math_pairs.jsonl'
# Hostile ones may hang. Others never do, however busy the machine.
DEADLINES_S = {'equal': 60.0, 'unequal': 60.0, 'hostile': 3.0}
TABLES = {
  'agreement': ('topic', 'equal', 'accepted', 'unequal or hostile', 'rejected'),
  'disagreements': ('topic', 'label', 'gold', 'text', 'verdict'),
}
CAPTIONS = {
  'agreement': 'Pairs of each label, and how many of them are judged so.',
  'disagreements': 'All pairs that are not; text: the answer, or the whole completion.',
}


def read_pairs() -> list[dict[str, str]]:
  return [json.loads(line) for line in PAIRS.read_text().splitlines()]


def completion_of(pair: dict[str, str]) -> str:
  return pair['completion'] if 'completion' in pair else f'Therefore $\\boxed{{{pair["answer"]}}}$.'


def judge(pairs: Sequence[dict[str, str]]) -> list[Verdict]:
  verdicts = {}
  for label, deadline_s in DEADLINES_S.items():
    chosen = [i for i, pair in enumerate(pairs) if pair['label'] == label]
    items = [(pairs[i]['gold'], completion_of(pairs[i])) for i in chosen]
    with MathVerifier(num_workers=2, deadline_s=deadline_s) as verifier:
      verdicts |= zip(chosen, verifier.verify_batch(items), strict=True)
  return [verdicts[i] for i in range(len(pairs))]


def agrees(pair: dict[str, str], verdict: Verdict) -> bool:
  return verdict.is_success == (pair['label'] == 'equal')


def agreement_rows(pairs: Sequence[dict[str, str]], verdicts: Sequence[Verdict]) -> list[Row]:
  def row(name, topics):
    count = {}
    for is_equal in (True, False):
      found = [
        agrees(pair, verdict)
        for pair, verdict in zip(pairs, verdicts, strict=True)
        if pair['topic'] in topics and (pair['label'] == 'equal') == is_equal
      ]
      count[is_equal] = (len(found), sum(found))
    return dict(zip(TABLES['agreement'], (name, *count[True], *count[False]), strict=True))

  topics = list(dict.fromkeys(pair['topic'] for pair in pairs))
  return [*(row(topic, [topic]) for topic in topics), row('all', topics)]


def disagreement_rows(pairs: Sequence[dict[str, str]], verdicts: Sequence[Verdict]) -> list[Row]:
  return [
    {
      'topic': pair['topic'],
      'label': pair['label'],
      'gold': f'`{pair["gold"]}`',
      'text': f'`{pair.get("completion", pair.get("answer"))}`',
      'verdict': verdict.kind,
    }
    for pair, verdict in zip(pairs, verdicts, strict=True)
    if not agrees(pair, verdict)
  ]


def main(arguments: Sequence[str] | None = None):
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--outdir', type=pathlib.Path, default=common.FOLDER / 'results')
  options = parser.parse_args(arguments)
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}'
    for name in ('math-verify', 'latex2sympy2-extended', 'sympy')
  )
  header = common.describe('benchmarks.math_agreement', arguments, f'seed: none; {versions}')
  pairs = read_pairs()
  verdicts = judge(pairs)
  rows = {
    'agreement': agreement_rows(pairs, verdicts),
    'disagreements': disagreement_rows(pairs, verdicts),
  }
  for table, columns in TABLES.items():
    print(f'\n{CAPTIONS[table]}')
    common.print_table(columns, rows[table])
  path = options.outdir / 'math_agreement'
  common.write('Answers judged by math-verify', rows, TABLES, CAPTIONS, header, path)
  print(f'\nWrote {path}.csv and .md.')


if __name__ == '__main__':
  main()
