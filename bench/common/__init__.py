"""What every benchmark shares: peers in environments of their own, alternating runs, one table and one JSON line.

Files: environment (virtual environments, cached), peer (a worker process that answers one JSON line with another),
report (machine, medians, table, the JSON line), no_udp (a network where UDP is blocked).
"""
