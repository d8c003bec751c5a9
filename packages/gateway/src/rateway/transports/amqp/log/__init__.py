"""Event logs: keep one for a cluster, read them, and the texts that proxies share."""
