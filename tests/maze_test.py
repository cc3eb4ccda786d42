"""Mazes: their generator, prompts and demonstrations, and what their verifier says of cases."""

import re

import jax
import numpy as np
import pytest

from configs import default, maze_tiny
from pkpo_jax.run import make_run
from pkpo_jax.settings import Settings, build
from pkpo_jax.tasks import TASKS
from pkpo_jax.tasks.grades import Verdict
from pkpo_jax.tasks.maze import MazeTask, draw_maze, share_of_way, shortest_way, verify_maze
from pkpo_jax.tasks.text import decode_completions
from pkpo_jax.tokenizers import CharacterTokenizer


def task_of(**fields):
  settings = dict(
    tokenizer=CharacterTokenizer(),
    seed=0,
    num_train=60,
    num_held_out=40,
    size=5,
    wall_share=0.3,
    min_moves=3,
    max_moves=8,
    demonstration_noise=0.3,
    prompt_format=None,
  )
  return MazeTask(**settings | fields)


def mazes_of(task):
  """Returns the mazes by their prompts, those to train on and those held out."""
  tokens = task.prompts_of(np.arange(task.num_problems + task.num_held_out)).tokens
  texts = [task.tokenizer.decode(row) for row in tokens]
  assert all(text.endswith('\n=') for text in texts)
  mazes = [tuple(text[:-2].split('\n')) for text in texts]
  return mazes[: task.num_problems], mazes[task.num_problems :]


def fewest_moves(maze):
  """Returns how often the cells reached have to grow by their neighbours until E is one of them."""
  cells = np.array([list(row) for row in maze])
  reached, num_moves = cells == 'S', 0
  while not reached[cells == 'E'].all():
    padded = np.pad(reached, 1)
    grown = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    grown = (grown | reached) & (cells != '*')
    if (grown == reached).all():
      return None
    reached, num_moves = grown, num_moves + 1
  return num_moves


# The generator.


@pytest.mark.parametrize(
  'fields',
  [
    {},
    dict(size=3, min_moves=2, max_moves=4),
    dict(size=9, wall_share=0.4, min_moves=12, max_moves=14, num_train=5, num_held_out=5),
    dict(size=4, wall_share=0.0, min_moves=1, max_moves=1, num_train=40, num_held_out=8),  # All.
  ],
)
def test_mazes_are_as_configured(fields):
  task = task_of(**fields)
  assert task.objectives == ('pass@k',)
  train, held_out = mazes_of(task)
  sizes = (fields.get('num_train', 60), fields.get('num_held_out', 40))
  assert (len(train), len(held_out)) == (task.num_problems, task.num_held_out) == sizes
  assert len({*train, *held_out}) == sum(sizes), 'distinct, and so no maze is in both'
  size, low, high = (fields.get(x, y) for x, y in (('size', 5), ('min_moves', 3), ('max_moves', 8)))
  lengths = [fewest_moves(maze) for maze in train + held_out]
  assert {low, high} <= set(lengths) <= set(range(low, high + 1))
  for maze in train + held_out:
    assert [len(row) for row in maze] == [size] * size
    characters = ''.join(maze)
    assert set(characters) <= set('SE*.')
    assert characters.count('S') == characters.count('E') == 1


def test_walls_are_as_frequent_as_configured():
  rng = np.random.default_rng(0)
  mazes = [draw_maze(rng, 20, 0.3, 1, 1000) for _ in range(60)]
  text = ''.join(''.join(maze) for maze in mazes if maze)
  share = text.count('*') / (len(text) - 2 * sum(maze is not None for maze in mazes))
  # Those that have a way have a little less.
  assert 0.27 < share < 0.31
  assert '*' not in ''.join(draw_maze(rng, 20, 0.0, 1, 1000))


def test_mazes_depend_on_the_seed_alone():
  train, held_out = mazes_of(task_of())
  assert mazes_of(task_of(demonstration_noise=0.9)) == (train, held_out)
  more, same = mazes_of(task_of(num_train=200))
  assert same == held_out
  assert more[:60] == train
  other, other_held_out = mazes_of(task_of(seed=1))
  assert not {*other, *other_held_out} & {*train, *held_out}


def test_the_mazes_of_seed_0_stay_what_they_are():
  """Or checkpoints of other days are evaluated on mazes they were trained on."""
  train, held_out = mazes_of(task_of(num_train=20, num_held_out=2))
  assert train[:2] == [
    ('.**.*', '*.*.*', 'E.*S.', '.....', '.....'),
    ('E..*.', '*....', '**.**', 'S....', '*....'),
  ]
  assert held_out[0] == ('.***.', '....S', '.*.*.', '*..E.', '**...')


def test_all_mazes_of_the_smallest_size_are_found():
  """Of 2 x 2 cells, two of which are free or walls."""
  side_by_side, across = 8 * 4, 4 * 3  # E across from S cannot be reached if both are walls.
  fields = dict(size=2, min_moves=1, max_moves=3, num_held_out=2)
  assert task_of(**fields, num_train=side_by_side + across - 2).num_problems == 42
  with pytest.raises(ValueError, match='num_held_out = 2: 44 distinct problems were found.*got 43'):
    task_of(**fields, num_train=side_by_side + across - 1)


@pytest.mark.parametrize(
  'fields, words',
  [
    (dict(size=1), 'size: expected 2 to 64, got 1'),
    (dict(size=65), 'size: .*got 65'),
    (dict(wall_share=1.0), 'wall_share: .*got 1.0'),
    (dict(wall_share=-0.1), 'wall_share: .*got -0.1'),
    (dict(min_moves=0), 'min_moves: expected 1 to max_moves = 8, got 0'),
    (dict(min_moves=9), 'min_moves: expected 1 to max_moves = 8, got 9'),
    (dict(min_moves=25, max_moves=30), 'min_moves: expected fewer than the 25 cells, got 25'),
    (dict(min_moves=24, max_moves=24), 'num_train: .*0 distinct problems were found'),
    (dict(demonstration_noise=1.1), 'demonstration_noise: .*got 1.1'),
    (dict(num_train=0), 'num_train: expected at least 1, got 0'),
    (dict(num_held_out=1), 'num_held_out: expected at least 2, got 1'),
    (dict(seed=-1), 'seed: expected at least 0, got -1'),
    (dict(reward='half'), "reward: expected one of .*'share'.*, got 'half'"),
    (dict(reward_noise=-0.1), r'reward_noise: expected in \[0, 1\], got -0.1'),
    (dict(reward='share', reward_noise=0.1), r'reward_noise: expected in \[0, 0\], got 0.1'),
  ],
)
def test_impossible_mazes_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    task_of(**fields)


# Prompts and demonstrations.


def test_a_prompt_is_the_maze_row_by_row():
  task = task_of(size=3, min_moves=2, max_moves=4)
  assert task.prompt_text(('S.*', '*..', '.*E')) == 'S.*\n*..\n.*E\n='
  (maze, *_), _ = mazes_of(task)
  newline, ids = 3, {'.': 18, '*': 14, 'S': 55, 'E': 41, '=': 33}
  rows = [[ids[cell] for cell in row] + [newline] for row in maze]
  (tokens,) = task.prompts_of(np.array([0])).tokens
  assert tokens.tolist() == [0, 0, 2, *rows[0], *rows[1], *rows[2], ids['=']]


def demonstrated(task, num_samples):
  """Returns every maze to train on with each of its demonstrations."""
  prompts = task.prompts_of(np.arange(task.num_problems))
  rollout = task.demonstrations(prompts, num_samples, 10, jax.random.key(0))
  texts = decode_completions(task.tokenizer, rollout)
  return [
    (maze, text) for maze, group in zip(mazes_of(task)[0], texts, strict=True) for text in group
  ]


def test_demonstrations_without_noise_are_shortest_ways():
  for maze, text in demonstrated(task_of(demonstration_noise=0.0), 4):
    assert verify_maze(maze, text) == Verdict('right', text)
    assert len(text) == fewest_moves(maze)


def test_noise_replaces_moves():
  def share_right(noise):
    pairs = demonstrated(task_of(demonstration_noise=noise), 20)
    assert all(len(text) == fewest_moves(maze) and set(text) <= set('UDLR') for maze, text in pairs)
    verdicts = [verify_maze(maze, text) for maze, text in pairs]
    assert {verdict.kind for verdict in verdicts} == {'right', 'wrong'}
    # A random move is the right one in a quarter of the cases.
    unchanged = np.mean([(1 - 0.75 * noise) ** len(text) for _, text in pairs])
    return np.mean([verdict.reward for verdict in verdicts]), unchanged, len(pairs)

  right, unchanged, num = share_right(0.3)
  # The other shortest ways add to it.
  assert unchanged - 4 * np.sqrt(0.25 / num) < right < unchanged + 0.15
  random_right, random_unchanged, _ = share_right(1.0)
  assert random_unchanged / 2 < random_right < right


def test_demonstrations_take_every_shortest_way():
  rng = np.random.default_rng(0)
  ways = {shortest_way(('S..', '.*.', '..E'), rng) for _ in range(200)}
  assert ways == {'RRDD', 'DDRR'}
  assert shortest_way(('S*', '*E'), rng) is None


# The verifier.

ROWS = ('S.*', '*..', '.*E')


@pytest.mark.parametrize(
  'completion, verdict',
  [
    ('RDRD', Verdict('right', 'RDRD')),
    (' RDRD\n', Verdict('right', 'RDRD')),
    ('RLRDRD', Verdict('right', 'RLRDRD')),
    ('RDRDUD', Verdict('right', 'RDRDUD')),  # Leaves E and comes back.
    ('RDRDU', Verdict('wrong', 'RDRDU')),
    ('RDR', Verdict('wrong', 'RDR')),
    ('RRDD', Verdict('wrong', 'RRDD')),  # Through a wall, to E.
    ('DRRD', Verdict('wrong', 'DRRD')),
    ('URDDRD', Verdict('wrong', 'URDDRD')),  # Outside, and back in.
    ('LRRDRD', Verdict('wrong', 'LRRDRD')),
    ('RDRRLD', Verdict('wrong', 'RDRRLD')),
    ('RDRDDU', Verdict('wrong', 'RDRDDU')),
    ('', Verdict('empty')),
    (' \n\t\u2003', Verdict('empty')),
    ('rdrd', Verdict('malformed')),
    ('R D R D', Verdict('malformed')),
    ('R,D,R,D', Verdict('malformed')),
    ('=RDRD', Verdict('malformed')),
    ('The way is RDRD', Verdict('malformed')),
    ('RDRD\x00', Verdict('malformed')),
    ('ＲＤＲＤ', Verdict('malformed')),
    ('\ud800RDRD', Verdict('malformed')),
    ('\ufffd', Verdict('malformed')),
    ('RL' * 16 + 'RDRD', Verdict('right', 'RL' * 16 + 'RDRD')),  # 36 is four times the cells.
    ('RL' * 16 + 'RDRD ', Verdict('overlong')),
    (' ' * 37, Verdict('overlong')),
    ('R' * 1_000_000, Verdict('overlong')),
  ],
)
def test_verdicts(completion, verdict):
  assert verify_maze(ROWS, completion) == verdict
  assert task_of().verify(ROWS, completion) == verdict


@pytest.mark.parametrize(
  'completion, share',
  [
    ('RDRD', 1),
    ('RLRDRD', 1),
    ('R', 1 / 4),
    ('RDR', 3 / 4),
    ('RDRDU', 3 / 4),
    ('RL', 0),
    ('RDRDD', 0),  # Leaves the maze.
    ('RRD', 0),  # Into a wall.
    ('', 0),
    ('go', 0),
    ('RL' * 30, 0),  # Overlong.
  ],
)
def test_the_reward_can_be_the_share_of_the_way(completion, share):
  task = task_of(reward='share')
  assert task.objectives == ('pass@k', 'max@k')
  assert task.verify(ROWS, completion) == verify_maze(ROWS, completion)._replace(score=share)


def test_shares_of_ways_are_those_of_the_fewest_moves():
  """For every cell of a maze, by the other count of moves; 0 where it is farther off than S."""
  maze = ('S..*', '.*..', '...*', '*..E')
  moves_from = lambda r, c: fewest_moves(
    tuple(
      ''.join('S' if (i, j) == (r, c) else '.' if x == 'S' else x for j, x in enumerate(row))
      for i, row in enumerate(maze)
    )
  )
  shares = {(0, 2): 'RR', (1, 2): 'RRD', (1, 3): 'RRDR', (2, 2): 'DDRR', (3, 1): 'DDRD'}
  shares |= {(2, 0): 'DD', (0, 1): 'R'}
  for cell, moves in shares.items():
    expected = max(0, 1 - moves_from(*cell) / moves_from(0, 0))
    assert share_of_way(maze, moves) == pytest.approx(expected)


def grades_with_noise(ids, noise, key):
  task = task_of(reward_noise=noise, demonstration_noise=0.9)
  prompts = task.prompts_of(np.asarray(ids))
  rollout = task.demonstrations(prompts, 200, 10, jax.random.key(1))
  return task, task.grade(prompts, rollout, key)


def test_noise_pays_wrong_answers_to_mazes_that_are_trained_on():
  ids = [0, 5, 59, 60, 61]  # Two are held out.
  task, grades = grades_with_noise(ids, 0.3, jax.random.key(2))
  assert task.objectives == ('pass@k',)
  successes = np.array([[x.is_success for x in group] for group in grades.verdicts])
  np.testing.assert_array_equal(grades.successes, successes)
  np.testing.assert_array_equal(grades.rewards[3:], successes[3:])
  paid = (grades.rewards > successes)[:3]
  assert (grades.rewards >= successes).all()
  num_wrong = (~successes[:3]).sum()
  assert abs(paid.sum() / num_wrong - 0.3) < 4 * np.sqrt(0.3 * 0.7 / num_wrong)
  # A maze's noise is its own, so that processes may share the mazes out.
  _, alone = grades_with_noise([59], 0.3, jax.random.key(2))
  is_wrong_in_both = ~successes[2] & (alone.successes[0] == 0)
  np.testing.assert_array_equal(
    grades.rewards[2][is_wrong_in_both], alone.rewards[0][is_wrong_in_both]
  )
  _, other = grades_with_noise(ids, 0.3, jax.random.key(3))
  assert (other.rewards != grades.rewards).any()


# The configs.


def test_the_default_task_fits_its_tiny_config():
  config = maze_tiny.get_config()
  task = build('task', config.task.to_dict(), TASKS, tokenizer=CharacterTokenizer())
  assert (task.num_problems, task.num_held_out) == (2000, 256)
  assert config.eval.num_prompts <= task.num_held_out
  # The longest demonstration and its end.
  assert default.task('maze').max_moves + 1 <= config.policy.max_new_tokens


@pytest.mark.parametrize('arg', [None, '', 'warm', 'quick', 'warm_quick'])
def test_variants_of_the_tiny_config(arg):
  settings = Settings.from_config(maze_tiny.get_config(arg))
  assert (settings.rollout.source == 'demonstrations') == ('warm' in (arg or ''))
  if 'quick' in (arg or ''):
    assert settings.eval.every < settings.num_train_steps <= 10
    assert settings.checkpoint.every < settings.num_train_steps


def test_an_unknown_variant_is_refused():
  with pytest.raises(ValueError, match="maze_tiny.py: .*'warm_quick'.*got 'hot'"):
    maze_tiny.get_config('hot')


def test_a_demonstration_without_room_is_refused_before_the_run():
  config = maze_tiny.get_config('warm_quick')
  config.policy.max_new_tokens = 8
  with pytest.raises(ValueError, match='policy.max_new_tokens: expected at least the 9 tokens'):
    make_run(config)


def test_with_an_instruction_the_moves_are_in_the_last_box():
  task = task_of(prompt_format='gemma_it', demonstration_noise=0.0)
  text = task.tokenizer.decode(task.prompts_of(np.array([0])).tokens[0])
  head, maze, tail = re.fullmatch(
    r'<start_of_turn>user\n(.*)\n\n([SE.*\n]+)(<end_of_turn>\n<start_of_turn>model\n)',
    text,
    re.DOTALL,
  ).groups()
  assert r'within \boxed{}' in head and tail
  maze = tuple(maze.split('\n'))
  way = task.demonstrate(maze, np.random.default_rng(0))
  moves = way.removeprefix(r'\boxed{').removesuffix('}')
  assert task.verify(maze, f'First {way[:-3]}, no: {way}.') == Verdict('right', moves)
  assert task.verify(maze, rf'{way} and not \boxed{{{moves[:-1]}}}') == Verdict('wrong', moves[:-1])
  kinds = [task.verify(maze, x).kind for x in (moves, ' ', r'\boxed{}', rf'\boxed{{go {moves}}}')]
  assert kinds == ['malformed', 'empty', 'empty', 'malformed']
