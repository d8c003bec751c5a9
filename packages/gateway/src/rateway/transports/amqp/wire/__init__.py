"""A connection to the broker: addresses, dialling, the handshake, and frames in both directions."""
