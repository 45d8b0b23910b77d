"""Measures of speed, each against its limit in the same run. See bench/README.md."""
