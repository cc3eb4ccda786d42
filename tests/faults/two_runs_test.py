"""Two runs that are started in one workdir at the same instant: one trains, the other is told."""

from tests.interruptions import command_process, metrics_text

ARGUMENTS = ['--config=configs/bandit.py:quick', '--config.eval.num_prompts=8']
ARGUMENTS += ['--config.log.tensorboard=False', '--config.num_train_steps=100']


def _outputs(tmp_path, workdir, count):
  arguments = [*ARGUMENTS, f'--workdir={tmp_path / workdir}']
  files = [tmp_path / f'{workdir}_{i}.txt' for i in range(count)]
  processes = [command_process(arguments, file) for file in files]
  for process in processes:
    process.join()
  return [process.exitcode for process in processes], [file.read_text() for file in files]


def test_one_of_two_trains(tmp_path):
  codes, (only,) = _outputs(tmp_path, 'alone', 1)
  assert codes == [0], only
  codes, outputs = _outputs(tmp_path, 'both', 2)
  assert sorted(codes) == [0, 1], outputs
  refused = outputs[codes.index(1)]
  assert 'workdir: another process trains in' in refused and 'Traceback' not in refused
  assert metrics_text(tmp_path / 'both') == metrics_text(tmp_path / 'alone')
