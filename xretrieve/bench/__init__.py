"""Benchmark suites behind `xretrieve bench`."""
