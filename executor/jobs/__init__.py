"""A training run described in a file: its model, its data, its plan, and what is reported of it."""
