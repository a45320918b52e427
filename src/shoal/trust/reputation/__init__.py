"""Who is believed how far, as a judge and as an answerer: exams, hidden checks, stake, collusion, and a shared ledger.

What it does: turns observations of a peer into a weight. What it does not: ask anybody anything, or make questions (the
node does both), or hold money.

Reading order: standing (one peer's figures and its weight), exam (proof of capability), collusion (two judges that
agree more than they should), ledger (who saw what: signed, chained and replicated by `mesh.store`, read by one's own
trust in those who wrote it). The floor below is `mesh.store`; the conformance tests in tests/trust/reputation say what
any other ledger would have to do.

What this does not protect against: a peer that judges well until it is worth betraying (its weight falls only with the
checks it then fails); colluders that own more than half of the weight; a peer that tells calibration items from real
ones. Stake here is a pledge of reputation in a log, not money: losing it costs what it cost to earn.
"""
