"""What an answer costs beyond tokens: joules, litres, grams and dollars, each with its source or not at all.

What it does: reads energy counters where the machine has them and models energy from processor time where it has none,
splits a machine's energy over the requests it worked on, turns joules into water and carbon where a place is stated.
What it does not: guess where a machine is, or call a model a measurement.

Files: rapl, nvml, battery (counters), source (which of them, or the model where none is readable), sharing (pure: who
used how much), metered (the `Generate` that fills `Usage`), wetbulb, places (data/places.json, data/factors.json),
impact (joules -> litres, grams, dollars), journal (totals that outlive the process), ipw (accuracy per watt and joule).

What this does not protect against: a peer that lies about its joules. Readings of peers are marked as theirs.
"""
