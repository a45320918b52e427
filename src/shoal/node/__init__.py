"""The composition root and the command line: the only floor that reads argv, the environment or a configuration file.

What it does: reads configuration, pulls models, builds the one nested `Generate`, serves it, talks to the terminal.
What it does not: decide anything about requests, tokens or models; those live on the floors below.

Files: cli (the `shoal` command), commands/ (one file per command), config (NodeConfig) and config_sources (where its
values come from), home (the store's place), compose (builds engine and service), doctor (what this machine can do).
"""
