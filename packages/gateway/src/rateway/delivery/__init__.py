"""What may be forgotten: unconfirmed events and the settled sequence of each shard. Pure."""
