"""Unconfirmed events, and the settled sequence of each shard. Pure."""
