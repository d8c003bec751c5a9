"""Event logs as the proxy reads them: one tail for all sessions, and the stream of each session."""
