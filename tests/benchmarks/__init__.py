"""The harness of the benchmarks works; its figures are not looked at."""
