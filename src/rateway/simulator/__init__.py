"""A fake Discord to develop and test bots against: `rateway simulate`."""
