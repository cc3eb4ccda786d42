"""The page of one or more runs: its sections, as HTML that needs nothing from outside."""

import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pkpo_jax import score
from pkpo_jax.errors import FieldError
from pkpo_jax.reporting.charts import COLORS, Line, line_chart, stacked_bars
from pkpo_jax.reporting.findings import findings_of
from pkpo_jax.runs import RunRecord, differing_fields, values_of
from pkpo_jax.samples import LEFT_OUT, label, lines_of, printable, problem_names, shorten
from pkpo_jax.score_files import Samples

_ESTIMATE = re.compile(r'(train|eval)/((?:pass|max)@(\d+))(_rolling)?')
_MOST_PROBLEMS, _MOST_CHARACTERS = 6, 1500  # Of completions that are shown, for each run.
_STYLE = """
:root { color-scheme: light; --line: #d8dde3; --soft: #5c6670; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 16px; color: #1c2126; background: #fff;
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 8px 0; } h2 { font-size: 19px; margin: 32px 0 8px; }
h3 { font-size: 15px; margin: 16px 0 4px; } p { margin: 6px 0; } a { color: #0b63a5; }
nav a { margin-right: 14px; white-space: nowrap; display: inline-block; }
small, .soft { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: left;
  white-space: nowrap; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: 8px; }
figure svg { width: 100%; height: auto; display: block; } figcaption { font-size: 13px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px; }
.warn { border-left: 4px solid #d55e00; background: #fff6ef; padding: 6px 10px; margin: 6px 0; }
.fine { border-left: 4px solid #009e73; background: #f1faf6; padding: 6px 10px; margin: 6px 0; }
pre { margin: 4px 0; padding: 8px; background: #f5f7f9; border-radius: 4px; font-size: 12.5px;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.tag { font-size: 12px; padding: 1px 7px; border-radius: 9px; background: #e8ecf0; }
.right { background: #d5f0e5; } .wrong { background: #fbe3d6; }
details > summary { cursor: pointer; margin: 6px 0; }
"""


def page(
  records: Sequence[RunRecord], names: Sequence[str], table: Sequence[Mapping], command: str
):
  """Returns the page as text.

  Args:
    records: the runs.
    names: of them, all different.
    table: rows of `pkpo_jax.runs`.
    command: what has made the page.
  """
  evaluations = [evaluations_of(record) for record in records]
  sections = {
    'Runs': _runs(table, names),
    'What to look at': _findings(records, names, evaluations),
    'Evaluation': ''.join(_evaluation(records, evaluations, names)),
    'Training': _training(records, names),
    'Completions': ''.join(
      _completions(each, name) for each, name in zip(evaluations, names, strict=True)
    ),
    'Time': _time(records, names),
    'Config': ''.join(_configs(records, names)),
  }
  sections = {title: content for title, content in sections.items() if content}
  anchor = lambda title: title.lower().replace(' ', '-')
  links = ''.join(f'<a href="#{anchor(title)}">{title}</a>' for title in sections)
  body = ''.join(f'<h2 id="{anchor(x)}">{x}</h2>{content}' for x, content in sections.items())
  title = html.escape(', '.join(names))
  return (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{title}</title><style>{_STYLE}</style></head><body>'
    f'<h1>{title}</h1><p class="soft">{html.escape(command)}</p><nav>{links}</nav>{body}'
    '</body></html>\n'
  )


class Evaluations(dict):
  """The samples of a run's evaluations by step, each a list of dicts; see `pkpo_jax.samples`.

  Attributes:
    cut: the steps of which not all samples were kept.
  """

  cut: frozenset[int] = frozenset()


def evaluations_of(record: RunRecord) -> Evaluations:
  """Returns the samples that a run has kept; none where there is no file."""
  found, cut = Evaluations(), set()
  path = record.workdir / 'samples' / 'eval.jsonl'
  if not path.is_file():
    return found
  for _, sample in lines_of(path):
    if LEFT_OUT in sample:
      cut.add(sample['step'])
    else:
      found.setdefault(sample['step'], []).append(sample)
  found.cut = frozenset(cut)
  return found


def _runs(table: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
  """Returns the table of runs, each with its color."""
  rows = [
    {**row, 'run': f'{_dot(i)}{html.escape(name)}'}
    for i, (row, name) in enumerate(zip(table, names, strict=True))
  ]
  return _table(rows, raw={'run'})


def _dot(i: int) -> str:
  return f'<span class="dot" style="background:{COLORS[i % len(COLORS)]}"></span>'


def _findings(
  records: Sequence[RunRecord], names: Sequence[str], evaluations: Sequence[Evaluations]
) -> str:
  """Returns what is to be looked at."""
  found = []
  for record, name, kept in zip(records, names, evaluations, strict=True):
    sentences = findings_of(record)
    if kept.cut:
      sentences.append(
        f'Not all samples of the evaluations at {sorted(kept.cut)} were kept '
        '(log.max_samples_mib): what is made of samples here leaves those steps out.'
      )
    if not kept:
      sentences.append(
        'No samples of evaluations were kept: there are no intervals of pass@k here.'
      )
    found += [f'<b>{html.escape(name)}</b>: {html.escape(each)}' for each in sentences]
  if not found:
    return '<p class="fine">None of the signs of trouble that are looked for was seen.</p>'
  return ''.join(f'<p class="warn">{each}</p>' for each in found)


def _samples(kept: Evaluations, step: int, seed: int | None) -> Samples:
  """Returns samples as `pkpo_jax.score` takes them: successes, or rewards where there are none.

  Problems that an evaluation draws are those of other runs with the same seed alone.
  """
  is_right = any(sample['success'] is not None for sample in kept[step])
  groups: dict[str, list[dict]] = {}
  for sample, name in zip(kept[step], problem_names(kept[step]), strict=True):
    is_drawn = '/' in name
    groups.setdefault(f'{name} of seed {seed}' if is_drawn else name, []).append(sample)
  value = lambda x: None if x is None else float(x)
  rewards = [
    [value(sample['success' if is_right else 'reward']) for sample in group]
    for group in groups.values()
  ]
  answers = [[sample['answer'] for sample in group] for group in groups.values()]
  return Samples(list(groups), rewards, answers if any(map(any, answers)) else None)


def _evaluation(
  records: Sequence[RunRecord], evaluations: Sequence[Evaluations], names: Sequence[str]
) -> Iterator[str]:
  """Yields pass@k of the last evaluations, before and after, and differences from the first run."""
  last = {
    name: (i, _samples(kept, max(kept.keys() - kept.cut), record.config.get('seed')))
    for i, (record, kept, name) in enumerate(zip(records, evaluations, names, strict=True))
    if kept.keys() - kept.cut
  }
  if not last:
    return
  found = {name: _scored([samples], [name]) for name, (_, samples) in last.items()}
  found = {name: report for name, report in found.items() if report}
  if not found:
    yield '<p class="soft">Rewards have no known range, so that there are no intervals.</p>'
    return
  charts, rows = {}, []
  for name, report in found.items():
    for curve, columns in report['runs'][0]['curves'].items():
      line = Line(name, *(columns[x] for x in ('k', 'mean', 'low', 'high')), last[name][0])
      charts.setdefault(curve, []).append(line)
      rows += [
        {'run': name, 'curve': curve, 'k': k, 'mean': mean, 'interval': f'[{low:.4f}, {high:.4f}]'}
        for k, mean, low, high in zip(line.x, line.y, line.low, line.high, strict=True)
      ]
  first, *others = found
  pairs = []
  for name in others:
    report = _scored([last[name][1], last[first][1]], [name, first])
    for curve, columns in (report or {'differences': {}})['differences'].items():
      line = Line(name, *(columns[x] for x in ('k', 'mean', 'low', 'high')), last[name][0])
      charts.setdefault(f'{curve}, minus {first}', []).append(line)
      pairs += [
        {
          'curve': curve,
          'k': k,
          'run': name,
          'its mean': columns['first'][i],
          f'mean of {first}': columns['second'][i],
          'difference': columns['mean'][i],
          'interval': f'[{columns["low"][i]:+.4f}, {columns["high"][i]:+.4f}]',
          'leaves out 0': 'yes' if columns['low'][i] > 0 or columns['high'][i] < 0 else '',
        }
        for i, k in enumerate(columns['k'])
      ]
  figures = [
    _figure(line_chart(lines, 'k', is_log=True, zero='minus' in curve), curve)
    for curve, lines in charts.items()
  ]
  yield '<p class="soft">The last evaluation of each run. Bands and intervals: 95 %, over problems.'
  yield ' They say nothing about other seeds.</p>'
  yield f'<div class="grid">{"".join(figures)}</div>'
  if pairs:
    objective = pairs[0]['curve']
    rest = [row for row in pairs if row['curve'] != objective]
    pairs = [row for row in pairs if row['curve'] == objective]
    yield f'<h3>Paired over problems, against {html.escape(first)}</h3>{_table(pairs)}'
    if rest:
      yield f'<details><summary>The same of the other curves</summary>{_table(rest)}</details>'
  yield f'<details><summary>All values</summary>{_table(rows)}</details>'
  warnings = {
    f'{name}: {curve} at k = {k}: {warning}.'
    for name, report in found.items()
    for curve, columns in report['runs'][0]['curves'].items()
    for k, warning in zip(columns['k'], columns['warnings'], strict=True)
    if warning
  }
  if warnings:
    lines = ''.join(f'<li>{html.escape(each)}</li>' for each in sorted(warnings))
    yield f'<details><summary>{len(warnings)} intervals rest on few problems</summary>'
    yield f'<ul>{lines}</ul></details>'


def _scored(samples: Sequence[Samples], names: Sequence[str]) -> dict[str, Any] | None:
  """Returns what `pkpo_jax.score` finds, None where it needs to be told more."""
  try:
    return score.score(samples, names)
  except FieldError:
    return None


def _training(records: Sequence[RunRecord], names: Sequence[str]) -> str:
  """Returns a chart for each metric that some run has."""
  known = {name for record in records for line in record.metrics for name in line}
  charts = []
  for title, metrics in _charts(known):
    lines = []
    for i, (record, name) in enumerate(zip(records, names, strict=True)):
      for style, metric in enumerate(metrics):
        values = values_of(record, metric)
        if not values:
          continue
        x, y = zip(*values, strict=True)
        errors = dict(values_of(record, f'{metric}_se'))
        band = [2 * errors.get(step, 0.0) for step in x]
        low, high = ([a + sign * b for a, b in zip(y, band, strict=True)] for sign in (-1, 1))
        text = f'{name}, {metric.rpartition("/")[2]}' if len(metrics) > 1 else name
        is_banded = bool(errors)
        lines.append(
          Line(text, x, y, low if is_banded else None, high if is_banded else None, i, style)
        )
    if lines:
      has_band = any(line.low is not None for line in lines)
      note = ' (band: 2 standard errors)' if has_band else ''
      charts.append(_figure(line_chart(lines, 'step'), f'{title}{note}'))
  return f'<div class="grid">{"".join(charts)}</div>' if charts else ''


def _charts(known: set[str]) -> Iterator[tuple[str, list[str]]]:
  """Yields titles and metrics: the objective at the least and greatest k, then the others."""
  for split, rolling in (('eval', None), ('train', '_rolling')):
    found = [match for match in map(_ESTIMATE.fullmatch, known) if match]
    by_k = {int(x[3]): x[0] for x in found if x[1] == split and x[4] == rolling}
    if by_k:
      ks = sorted({min(by_k), max(by_k)})
      name = 'held-out problems' if split == 'eval' else 'training, a running mean'
      yield f'Objective, {name}', [by_k[k] for k in ks]
  for title, metric in (
    ('Share of training problems ever solved', 'train/cumulative_solve_rate'),
    ('Mean reward', 'train/reward_mean'),
    ('Entropy of a token, nats', 'train/entropy'),
    ('Tokens of a completion', 'train/completion_tokens'),
    ('Share of prompts without signal', 'train/zero_advantage_share'),
    ('Norm of the gradient', 'train/grad_norm'),
    ('Mean ratio to the sampling policy', 'train/ratio_mean'),
    ('KL to the reference', 'train/kl'),
    ('k', 'train/k'),
    ('Learning rate', 'train/learning_rate'),
  ):
    if metric in known:
      yield title, [metric]


def _completions(kept: Evaluations, name: str) -> str:
  """Returns right and wrong completions of some problems, before and after."""
  steps = sorted(kept)
  if not steps:
    return ''
  before, after = steps[0], steps[-1]
  by_prompt: dict[str, dict[int, list]] = {}
  for step in dict.fromkeys((before, after)):
    for sample, problem in zip(kept[step], problem_names(kept[step]), strict=True):
      by_prompt.setdefault(problem, {}).setdefault(step, []).append(sample)
  complete = [each for each in by_prompt.values() if len(each) == len({before, after})]
  blocks = []
  for groups in sorted(complete, key=_interest, reverse=True)[:_MOST_PROBLEMS]:
    prompt = next(iter(groups.values()))[0]['prompt']
    columns = ''.join(
      f'<div><h3>step {step}</h3>{_right_and_wrong(groups[step])}</div>' for step in sorted(groups)
    )
    blocks.append(f'<pre>{_shown(prompt)}</pre><div class="grid">{columns}</div>')
  about = f'{html.escape(name)}: {len(blocks)} problems, those whose pass rate has changed most'
  content = '<hr>'.join(blocks)
  return f'<details open><summary>{about}</summary>{content}</details>'


def _interest(groups: Mapping[int, Sequence[Mapping]]) -> float:
  """Returns by how much the pass rate of a problem has changed."""
  outcome = lambda x: x['reward'] if x['success'] is None else x['success']
  rates = [_mean(map(outcome, group)) for _, group in sorted(groups.items())]
  return abs(rates[-1] - rates[0])


def _mean(values) -> float:
  known = [float(x) for x in values if x is not None]
  return sum(known) / len(known) if known else 0.0


def _right_and_wrong(group: Sequence[Mapping[str, Any]]) -> str:
  """Returns a right and a wrong sample of a problem, and how many there are of each kind."""
  counts = Counter(label(sample) or 'graded' for sample in group)
  tags = ' '.join(
    f'<span class="tag {"right" if x == "right" else "wrong"}">{n} {html.escape(x)}</span>'
    for x, n in counts.most_common()
  )
  is_right = lambda sample: label(sample) == 'right'
  right = next(filter(is_right, group), None)
  wrong = next((sample for sample in group if not is_right(sample)), None)
  shown = [
    f'<pre class="{"right" if sample is right else "wrong"}">{_shown(sample["completion"])}</pre>'
    for sample in (right, wrong)
    if sample is not None
  ]
  return f'<p>{tags}</p>{"".join(shown)}'


def _shown(text: str) -> str:
  """Returns a text for a page, which shows it and does not obey; a long one loses its middle."""
  return html.escape(printable(shorten(text, _MOST_CHARACTERS))) or '<i>nothing</i>'


def _time(records: Sequence[RunRecord], names: Sequence[str]) -> str:
  """Returns where the time of a step goes, in the mean but for the first, which compiles."""
  known = {name for record in records for line in record.metrics for name in line}
  parts = sorted(filter(re.compile(r'time/(?!.*per_s).*_s').fullmatch, known))
  lengths = {part: [] for part in parts}
  for record in records:
    for part in parts:
      values = [value for _, value in values_of(record, part)]
      lengths[part].append(_mean(values[1:] or values))
  if not any(map(any, lengths.values())):
    return ''
  shown = {part.removeprefix('time/').removesuffix('_s'): x for part, x in lengths.items()}
  chart = stacked_bars(names, shown, 'seconds of a step, mean without the first')
  return _figure(chart, 'Where the time goes')


def _configs(records: Sequence[RunRecord], names: Sequence[str]) -> Iterator[str]:
  """Yields what differs between configs, and what has changed in one, and each whole config."""
  fields = differing_fields(records)
  if fields:
    rows = [
      {'field': field}
      | {
        name: json.dumps(record.config.get(field))
        for record, name in zip(records, names, strict=True)
      }
      for field in fields
    ]
    yield f'<h3>What differs</h3>{_table(rows)}'
  for record, name in zip(records, names, strict=True):
    history = record.workdir / 'config_history.jsonl'
    changes = history.read_text() if history.is_file() else ''
    if changes:
      yield f'<h3>Changed in {html.escape(name)}</h3><pre>{_shown(changes)}</pre>'
    text = '\n'.join(f'{field} = {json.dumps(x)}' for field, x in sorted(record.config.items()))
    yield f'<details><summary>{html.escape(name)}: the whole config</summary>'
    yield f'<pre>{html.escape(text)}</pre></details>'


def _figure(svg: str, caption: str) -> str:
  return f'<figure><figcaption>{html.escape(caption)}</figcaption>{svg}</figure>'


def _table(rows: Sequence[Mapping[str, Any]], raw: set[str] = frozenset()) -> str:
  """Returns rows as a table; columns of `raw` are HTML already."""
  names = [name for name in rows[0] if any(row[name] not in ('', None) for row in rows)]
  is_number = {x: all(isinstance(row[x], int | float | None) for row in rows) for x in names}
  css = {name: ' class="n"' if is_number[name] else '' for name in names}
  head = ''.join(f'<th{css[name]}>{html.escape(name)}</th>' for name in names)
  cell = lambda row, name: row[name] if name in raw else html.escape(_text(row[name]))
  lines = ''.join(
    '<tr>' + ''.join(f'<td{css[name]}>{cell(row, name)}</td>' for name in names) + '</tr>'
    for row in rows
  )
  return f'<div class="wide"><table><tr>{head}</tr>{lines}</table></div>'


def _text(value: Any) -> str:
  if value is None:
    return ''
  return f'{value:.4f}' if isinstance(value, float) else str(value)
