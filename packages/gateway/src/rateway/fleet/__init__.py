"""The layout of shards and clusters, and the governor of identifies. Pure: no clock, no socket, no log."""
