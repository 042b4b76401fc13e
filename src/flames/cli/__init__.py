"""The command line: arguments in, one call a subcommand."""
