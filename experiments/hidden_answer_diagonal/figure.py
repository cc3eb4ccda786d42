"""Draws pass@k_eval of every k_opt, and its shortfall from the optimum, from committed rows."""

from pathlib import Path

import numpy as np

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'diagonal.csv')
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
  left.set(xlabel='k_eval', ylabel='pass@k_eval', title='The best k_opt is k_eval')
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
  style.save(figure, output_dir / 'diagonal.png')


if __name__ == '__main__':
  main()
