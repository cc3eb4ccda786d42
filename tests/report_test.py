"""The page about runs: what it says; it needs nothing from outside, and a browser shows it."""

import html.parser
import json
import re
import shutil
import subprocess

import pytest

from pkpo_jax import report
from pkpo_jax.reporting.findings import findings_of
from pkpo_jax.reporting.page import Evaluations, evaluations_of
from pkpo_jax.runs import read_run
from tests.runs_test import write_run

VOID = {'meta', 'br', 'hr', 'link', 'img'}
HOSTILE = '<script>alert(1)</script>&amp;\x1b[31m</pre>'


def samples(step, rates, num_samples=8):
  """Yields lines of samples: of problem i the first rates[i] are right."""
  for i, rate in enumerate(rates):
    for j in range(num_samples):
      is_right = j < rate
      yield {
        **{'step': step, 'split': 'eval', 'prompt_id': i, 'group': i, 'sample': j},
        'prompt': f'Problem {i}? {HOSTILE if i == 0 else ""}',
        'completion': ('right' if is_right else 'wrong') + (HOSTILE if i == 0 else ''),
        **{'num_tokens': 3, 'is_truncated': False, 'verdict': 'right' if is_right else 'wrong'},
        **{'answer': str(is_right), 'reward': float(is_right), 'success': is_right},
      }


def metrics(train, last):
  lines = [{'step': 0, 'eval/pass@1': 0.1, 'eval/pass@1_se': 0.01, 'eval/pass@8': 0.4}]
  base = {'train/ratio_mean': 1.0, 'train/entropy': 0.5, 'time/rollout_s': 2.0}
  lines += [{'step': step, **base, 'time/update_s': 1.0, **train} for step in range(4)]
  lines += [{'step': 4, 'eval/pass@1': last, 'eval/pass@1_se': 0.01, 'eval/pass@8': 0.6}]
  return [json.dumps(line) for line in lines]


def make_run(folder, rates, train=None, last=0.3, **changes):
  write_run(folder, metrics(train or {}, last), **changes)
  (folder / 'samples').mkdir()
  lines = [*samples(0, [1] * len(rates)), *samples(4, rates)]
  (folder / 'samples' / 'eval.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
  return folder


@pytest.fixture(scope='module')
def workdirs(tmp_path_factory):
  root = tmp_path_factory.mktemp('runs')
  make_run(root / 'k1', [8, 8, 0, 0, 1, 0], advantage__k=1)
  make_run(root / 'k8', [6, 4, 2, 3, 1, 5], {'train/zero_advantage_share': 0.95})
  return [root / 'k1', root / 'k8']


@pytest.fixture(scope='module')
def page(workdirs, tmp_path_factory):
  """Returns the file with the page of two runs."""
  path = tmp_path_factory.mktemp('page') / 'report.html'
  report.main([*map(str, workdirs), f'--output={path}'])
  return path


class Reader(html.parser.HTMLParser):
  """Reads a page, whose elements have to be closed in turn."""

  def __init__(self):
    super().__init__()
    self.open, self.names, self.attributes, self.text = [], set(), [], []

  def handle_starttag(self, tag, attrs):
    self.names.add(tag)
    self.attributes += attrs
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.names.add(tag)
    self.attributes += attrs

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_what_the_page_says(page):
  reader = Reader()
  reader.feed(page.read_text())
  assert not reader.open
  text = ' '.join(reader.text)
  for expected in (
    *('Runs', 'What to look at', 'Evaluation', 'Training', 'Completions', 'Time', 'Config'),
    *('pass@k', 'pass^k', 'maj@k', 'pass@k, minus k1', 'Paired over problems, against k1'),
    *('What differs', 'advantage.k', 'Entropy of a token, nats', 'Where the time goes'),
    'A share of 95% of the prompts gives no signal',
    'the whole config',
  ):
    assert expected in text, expected
  # Of six problems each run has solved; the difference at k = 1 is that of the pass rates.
  rates = [sum(x) / 48 for x in ([8, 8, 0, 0, 1, 0], [6, 4, 2, 3, 1, 5])]
  assert f'{rates[1] - rates[0]:.4f}' in text
  assert 'advantage.name' not in text.partition('What differs')[2].partition('the whole')[0]


def test_completions_cannot_do_anything(page):
  reader = Reader()
  reader.feed(page.read_text())
  assert not reader.names & {'script', 'iframe', 'object', 'link', 'img', 'form'}
  assert HOSTILE.replace('\x1b', '\\x1b') in ''.join(reader.text)


def test_nothing_comes_from_outside(page):
  text = page.read_text()
  reader = Reader()
  reader.feed(text)
  for name, value in reader.attributes:
    if name in ('src', 'href', 'xlink:href', 'srcset', 'data'):
      assert value.startswith('#'), value
  assert not re.search(r'url\((?!#)|@import', text)


BROWSER = shutil.which('chromium') or shutil.which('google-chrome')


@pytest.mark.skipif(BROWSER is None, reason='neither chromium nor google-chrome is installed')
@pytest.mark.parametrize('width', [1280, 400])
def test_a_browser_shows_it(page, tmp_path, width):
  """It fits its window, has every chart at some size, and asks for nothing outside."""
  script = """<script>onload = () => {
    const wide = document.documentElement.scrollWidth <= innerWidth;
    const shown = [...document.querySelectorAll('figure svg')].every(
      (svg) => svg.getBoundingClientRect().width > 100 && svg.getBoundingClientRect().height > 30);
    const asked = performance.getEntriesByType('resource').length;
    document.title = JSON.stringify([wide, shown, asked,
      document.querySelectorAll('figure svg').length]);
  }</script>"""
  copy = tmp_path / 'page.html'
  copy.write_text(page.read_text().replace('</body>', f'{script}</body>'))
  command = [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic']
  command += ['--no-first-run', '--disable-background-networking', '--disable-component-update']
  command += ['--disable-sync', f'--user-data-dir={tmp_path / "profile"}', '--dump-dom']
  command += [f'--window-size={width},900', f'file://{copy}']
  run = subprocess.run(command, capture_output=True, text=True, timeout=120)
  title = re.search('<title>(.*?)</title>', run.stdout)
  assert title, run.stderr[-2000:]
  fits, shown, asked, count = json.loads(title[1])
  assert fits and shown and asked == 0 and count >= 8


def test_one_run_alone(workdirs, tmp_path):
  report.main([str(workdirs[0]), f'--output={tmp_path / "one.html"}'])
  text = (tmp_path / 'one.html').read_text()
  assert '<title>k1</title>' in text
  assert 'Paired over problems' not in text and 'What differs' not in text
  assert 'None of the signs of trouble' in text


def test_a_run_that_has_just_begun(tmp_path):
  """No metrics, no samples: the page says so, and has the config."""
  write_run(tmp_path / 'new')
  report.main([str(tmp_path / 'new'), f'--output={tmp_path / "new.html"}'])
  text = (tmp_path / 'new.html').read_text()
  assert 'No samples of evaluations were kept' in text and 'the whole config' in text
  assert '<svg' not in text


def test_samples_that_were_not_all_kept(tmp_path):
  folder = make_run(tmp_path / 'cut', [4, 4, 4])
  with (folder / 'samples' / 'eval.jsonl').open('a') as file:
    file.write(json.dumps({'step': 4, 'split': 'eval', 'left_out': 7}) + '\n')
  kept = evaluations_of(read_run(folder))
  assert kept.keys() == {0, 4} and kept.cut == {4}
  report.main([str(folder), f'--output={tmp_path / "cut.html"}'])
  assert (
    'Not all samples of the evaluations at [4] were kept' in (tmp_path / 'cut.html').read_text()
  )


@pytest.mark.parametrize('seed, is_paired', [(0, True), (1, False)])
def test_problems_that_are_drawn(tmp_path, seed, is_paired):
  """Eight groups of two contexts are eight problems; other seeds have others."""
  for name, own_seed in (('first', 0), ('second', seed)):
    folder = write_run(tmp_path / name, metrics({}, 0.5), seed=own_seed)
    (folder / 'samples').mkdir()
    lines = [line | {'prompt_id': line['group'] % 2} for line in samples(4, [4, 0] * 4)]
    (folder / 'samples' / 'eval.jsonl').write_text(''.join(json.dumps(x) + '\n' for x in lines))
  paths = [str(tmp_path / name) for name in ('first', 'second')]
  report.main([*paths, f'--output={tmp_path / "page.html"}'])
  text = (tmp_path / 'page.html').read_text()
  # pass@8 of each problem is 0 or 1; of all samples of a context together it would be nearer to 1.
  assert '<td class="n">8</td><td class="n">0.5000</td>' in text
  assert '>16<' not in text.partition('All values')[2].partition('</table>')[0]
  assert ('Paired over problems' in text) == is_paired


@pytest.mark.parametrize(
  'train, expected',
  [
    ({}, None),
    ({'train/ratio_mean': 1.3}, 'The mean ratio of the policy to the one that sampled is 1.3'),
    ({'train/ratio_mean': 0.8}, 'far from 1'),
    ({'train/log_ratio_max': 2.5}, 'a log ratio of up to 2.5'),
    ({'train/zero_advantage_share': 0.9}, 'A share of 90% of the prompts gives no signal'),
    ({'train/verdict_overlong': 0.4}, 'A share of 40% of the completions is cut off'),
    ({'train/verdict_unjudged': 0.05}, 'no verdict on 5.0% of the samples'),
    ({'train/skipped_updates': 3}, '3 updates were skipped'),
  ],
)
def test_signs_of_trouble(tmp_path, train, expected):
  found = findings_of(read_run(make_run(tmp_path / 'run', [1, 2], train)))
  assert len(found) == (expected is not None)
  assert expected is None or expected in found[0]


def test_an_entropy_that_falls_and_a_run_that_stopped(tmp_path):
  lines = [json.dumps({'step': i, 'train/entropy': 0.5 / (1 + 30 * i)}) for i in range(3)]
  fallen, stopped = sorted(findings_of(read_run(write_run(tmp_path / 'run', lines))))
  assert 'The entropy has fallen to 0.00' in fallen
  assert 'has stopped after 3 of 4 steps' in stopped


def test_evaluations_without_samples_are_none(tmp_path):
  assert evaluations_of(read_run(write_run(tmp_path / 'run'))) == Evaluations()


@pytest.mark.parametrize(
  'words, expected',
  [
    (['{root}/none'], 'none: expected the folder of a run, with its config.json'),
    (['{root}/k1', '{root}/../{name}/k1'], 'expected each run once'),
    (['{root}/k1', '--output={root}/none/x.html'], '--output: cannot write '),
  ],
)
def test_wrong_words(workdirs, words, expected):
  root = workdirs[0].parent
  with pytest.raises(SystemExit) as error:
    report.main([word.format(root=root, name=root.name) for word in words])
  assert expected in str(error.value) and '\n' not in str(error.value)
