"""Who runs which shard, and who may identify. Pure: no clock, no socket, no log."""
