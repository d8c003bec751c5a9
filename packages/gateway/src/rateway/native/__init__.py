"""The hot path in its two forms: compiled by Cython, and plain Python as the reference."""
