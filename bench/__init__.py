"""Measures: how fast the whole is, each against its limit in the same run. See bench/README.md."""
