"""Draws pass@k_eval of every k_opt, and its share of the optimum, from committed rows."""

from pathlib import Path

from experiments import diagonal, results

RESULTS = Path(__file__).parent / 'results'


def main(output_dir: Path = RESULTS) -> None:
  rows = results.read_rows(RESULTS / 'diagonal.csv')
  diagonal.draw(rows, 'pass@k_eval of every k_opt', output_dir / 'diagonal.png')


if __name__ == '__main__':
  main()
