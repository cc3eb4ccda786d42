"""Notebooks: `NAME.py` in percent format is the source, `NAME.ipynb` is made from it."""
