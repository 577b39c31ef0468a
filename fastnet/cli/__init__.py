"""The command line, thin over the library: `main.main` reads the arguments and calls a command."""
