"""CPU µs an event of the whole path, in multiples of the floor; see ``__main__``."""
