"""Draws the advantages of Pass@k Training and eta against accuracy from the committed rows."""

from pathlib import Path

import numpy as np

from experiments import results, style

RESULTS = Path(__file__).parent / 'results'
KS = (1, 4, 8, 16)
# k of the compositions: the paper's Pass@k runs.
COMPOSED_K = 8


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'advantages.csv')
  draw_advantages(rows, output_dir / 'advantages.png')
  draw_compositions(rows, output_dir / 'compositions.png')


def draw_advantages(rows, path):
  """Their Figure 9: A_right, A_wrong and eta of the analytical advantages."""
  figure, panels = style.plt.subplots(1, 3, figsize=(style.WIDTH_3, style.HEIGHT))
  for k in KS:
    match = {'method': 'passk_analytical', 'k': k}
    accuracy = results.column(rows, 'accuracy', **match)
    line = {'color': style.k_color(k), 'marker': 'o', 'markersize': 3, 'label': f'k = {k}'}
    for axes, name in zip(panels, ('a_right', 'a_wrong', 'eta'), strict=True):
      values = results.column(rows, name, **match).astype(float)
      axes.plot(accuracy, values, **line)
    peak = int(np.argmax(values))
    panels[2].plot(
      accuracy[peak],
      values[peak],
      '*',
      color=style.k_color(k),
      markersize=13,
      markeredgecolor='white',
      zorder=3,
    )
    # Below its star: the line of the next smaller k runs above.
    panels[2].annotate(
      f'{peak}',
      (accuracy[peak], values[peak]),
      xytext=(0, -18),
      textcoords='offset points',
      ha='center',
      fontsize=10,
    )
  panels[0].set(title='Advantage of a right sample', ylabel='advantage (no unit)')
  panels[1].set(title='Advantage of a wrong sample', ylabel='advantage (no unit)')
  panels[2].set(
    title=r'$\eta = \Sigma_i |A_i|$; stars: largest, at 16, 8, 4, 2 right',
    ylabel=r'$\eta$ (no unit)',
  )
  for axes in panels:
    axes.set_xlabel('accuracy (right samples / 32)')
  panels[0].legend(title='Pass@k Training,\nanalytical')
  style.save(figure, path)


def draw_compositions(rows, path):
  """Their Figure 18, as we read it: eta of the compositions beside what they are made of."""
  figure, panels = style.plt.subplots(1, 2, figsize=(style.WIDTH_2, style.HEIGHT))
  for method in ('grpo', 'passk_analytical', 'passk_exceeding', 'passk_combination'):
    match = {'method': method, 'k': COMPOSED_K}
    eta = results.column(rows, 'eta', **match)
    accuracy = results.column(rows, 'accuracy', **match)
    line = style.method(method) | {'markersize': 4}
    panels[0].plot(accuracy, eta, **line)
    panels[1].plot(accuracy, eta / eta.max(), **line)
  panels[0].set(title=rf'$\eta$ of the compositions, k = {COMPOSED_K}', ylabel=r'$\eta$ (no unit)')
  panels[1].set(
    title='The same, each over its largest value', ylabel=r'$\eta$ / largest $\eta$ (no unit)'
  )
  for axes in panels:
    axes.set_xlabel('accuracy (right samples / 32)')
  figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', ncols=4)
  style.save(figure, path)


if __name__ == '__main__':
  main()
