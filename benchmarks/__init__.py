"""What the gateway costs: each module a command, such as ``python -m benchmarks.path``."""
