"""Pass@k_eval for every k_opt on a problem with a known optimum: rows and figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import style


def diagonal_rows(ks: Sequence[int], values: np.ndarray, best: Sequence[float]) -> list[dict]:
  """Returns a row for each pair of k_opt and k_eval.

  Args:
    ks: every k_opt, and every k_eval.
    values: `[k_opt, seeds, k_eval]` pass@k_eval.
    best: the optimum of each k_eval.
  """
  num_seeds = values.shape[1]
  return [
    {
      'k_opt': k_opt,
      'k_eval': k_eval,
      'pass_at_k': of_seeds.mean(),
      'standard_error': of_seeds.std(ddof=1) / np.sqrt(num_seeds),
      'lowest_seed': of_seeds.min(),
      'highest_seed': of_seeds.max(),
      'optimum': optimum,
      'num_seeds': num_seeds,
    }
    for k_opt, of_k_opt in zip(ks, values, strict=True)
    for k_eval, of_seeds, optimum in zip(ks, of_k_opt.T, best, strict=True)
  ]


def draw(rows: Sequence[Mapping], title: str, path: Path) -> None:
  """Draws pass@k_eval of every k_opt, and its share of the optimum."""
  ks = sorted({row['k_opt'] for row in rows})
  value = {(row['k_opt'], row['k_eval']): row['pass_at_k'] for row in rows}
  best = {row['k_eval']: row['optimum'] for row in rows}
  figure, (left, right) = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
  for k_opt in ks:
    left.plot(
      ks, [value[k_opt, k] for k in ks],
      color=style.k_color(k_opt), marker='o', label=f'k_opt = {k_opt}',
    )  # fmt: skip
  left.plot(ks, [best[k] for k in ks], 'k--', linewidth=1, label='optimum')
  left.set(xlabel='k_eval', ylabel='pass@k_eval', title=title)
  left.set_xscale('log', base=2)
  left.set_xticks(ks, ks)
  left.legend()

  share = np.array([[value[k_opt, k] / best[k] for k in ks] for k_opt in ks])
  image = right.imshow(share, vmin=0, vmax=1, cmap='viridis')
  for i, j in np.ndindex(share.shape):
    color = 'black' if share[i, j] > 0.6 else 'white'
    weight = 'bold' if share[i, j] == share[:, j].max() else 'normal'
    right.text(
      j, i, f'{100 * share[i, j]:.1f}', ha='center', va='center', color=color, weight=weight
    )
  right.set(xlabel='k_eval', ylabel='k_opt', title="Share of each k_eval's optimum, %")
  right.set_xticks(range(len(ks)), ks)
  right.set_yticks(range(len(ks)), ks)
  right.grid(visible=False)
  figure.colorbar(image, ax=right)
  style.save(figure, path)
