"""The wire contract with workers (``docs/contract.md``). Pure."""
