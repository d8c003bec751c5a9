"""What may happen in the simulated world, one kind of entity each."""
