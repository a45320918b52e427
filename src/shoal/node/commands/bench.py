"""`shoal bench`: serve."""


def bench(): ...
