"""What tests of interrupted runs share."""

import re


def metrics_text(workdir):
  """Returns metrics.jsonl byte for byte, but for how long things took."""
  return re.sub(r', "time/[^,}]*', '', (workdir / 'metrics.jsonl').read_text())
