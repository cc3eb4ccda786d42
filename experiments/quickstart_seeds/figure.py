"""Draws every seed's pass@k, and the share of training mazes solved, from committed rows."""

from pathlib import Path

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
COLORS = {'warm start': style.GREY, 'pass@1': style.k_color(1), 'pass@8': style.k_color(8)}
KS = (1, 2, 4, 8, 16)


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'seeds.csv')
  figure, axes = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
  seeds = results.column(rows, 'seed', trained_on='pass@1')
  for label, color in COLORS.items():
    for seed in seeds:
      curve = [results.column(rows, f'pass@{k}', trained_on=label, seed=seed)[0] for k in KS]
      axes[0].plot(
        KS, curve, color=color, linewidth=1, marker='o', markersize=3,
        label=label if seed == seeds[0] else None,
      )  # fmt: skip
    if label != 'warm start':
      solved = results.column(rows, 'solved', trained_on=label)
      axes[1].plot(seeds, solved, color=color, marker='o', linestyle='none', label=label)
  axes[0].set_xscale('log', base=2)
  axes[0].set_xticks(KS, KS)
  title = f'Held-out mazes, a line for each of {len(seeds)} seeds'
  axes[0].set(xlabel='k', ylabel='pass@k', title=title)
  axes[0].legend(title='trained on')
  axes[1].set_xticks(seeds, seeds)
  axes[1].set(xlabel='seed', title='Share of the training mazes solved')
  axes[1].legend(title='trained on')
  for axis in axes:
    axis.set_ylim(bottom=0)
  style.save(figure, output_dir / 'seeds.png')


if __name__ == '__main__':
  main()
