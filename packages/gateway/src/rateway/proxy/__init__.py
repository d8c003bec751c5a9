"""The gateway proxy: Discord libraries connect to it as they would to Discord (``docs/proxy.md``).

It knows the wire contract, the event log and the queries, not the processes that hold the shards.
"""
