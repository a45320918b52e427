"""`shoal doctor`: serve."""


def doctor(): ...
