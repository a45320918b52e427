"""One file per command of `shoal`. A command reads its flags, calls what does the work, and prints."""
