"""Accelerators that a run can be planned for: the one home of their published numbers."""

from typing import NamedTuple


class Chip(NamedTuple):
  """One device.

  Attributes:
    hbm_gib: its memory, GiB.
    flops: peak of dense products of bfloat16, FLOP/s.
    bandwidth: of its memory, bytes/s.
    link: to devices of the same slice or host, bytes/s in each direction.
  """

  hbm_gib: float
  flops: float
  bandwidth: float
  link: float


# TPUs: cloud.google.com/tpu/docs (v5e, v5p, v6e), key specifications, per chip; the link is half of
# the bidirectional bandwidth. v6e's link is that of 3,584 Gbit/s in all, published at its release.
# GPUs: NVIDIA's data sheets of the SXM forms, products without sparsity, half of NVLink's total;
# the memory is what nvidia-smi shows.
CHIPS = {
  'v5e': Chip(16, 197e12, 819e9, 200e9),
  'v5p': Chip(95, 459e12, 2765e9, 600e9),
  'v6e': Chip(32, 918e12, 1640e9, 224e9),
  'a100_80': Chip(80, 312e12, 2039e9, 300e9),
  'h100_80': Chip(79.6, 989e12, 3350e9, 450e9),
  'h200_141': Chip(140.4, 989e12, 4800e9, 450e9),
}
