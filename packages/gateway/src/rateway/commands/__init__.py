"""One module for each subcommand of `rateway`: SUMMARY, DESCRIPTION, EPILOG, `configure(parser)`, `run(options)`."""
