"""Queries and commands: the inbound queue of a cluster, and what asks through it."""
