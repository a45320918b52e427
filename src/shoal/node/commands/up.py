"""`shoal up`: serve."""


def up(): ...
