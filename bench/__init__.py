"""Benchmarks of gradsim, run from a checkout with the extra `bench` installed: see bench/README.md."""
