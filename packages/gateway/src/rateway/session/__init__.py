"""One shard's conversation with Discord, without I/O: facts in, orders out; time and chance are arguments."""
