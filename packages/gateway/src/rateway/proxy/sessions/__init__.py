"""The sessions of bots: how they begin, what they are sent and ask for, and how they end."""
