"""How our own weights are made, from data that is not in the repository: `python -m bench.training.NAME`."""
