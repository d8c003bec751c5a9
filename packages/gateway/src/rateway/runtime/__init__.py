"""Sets the machines in motion: one shard, one cluster, one process of them."""
