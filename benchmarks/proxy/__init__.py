"""What the gateway proxy costs and how fast it is; see ``__main__``."""
