"""Test-time compute over any `Generate`: several answers, and who judges them.

What it does: asks several members, lets each judge pairs of anonymous answers, and fits one ranking in which a judge
weighs as much as its reputation. What it does not: know what an engine or a network is; members are `Generate`s.

Files, in reading order: pairs (who is compared with whom), votes (what a judge said), bradley_terry (votes -> scores),
quoting (answers as a judge may see them), normalise (when two answers are the same), judging (scores or words ->
votes), answers (everybody's, at once), spent (one bill), round (what is known so far, and the rules), swarm (ranking by
peers, a `Generate`), baselines and strategies (majority and others, pure and as `Generate`s), cascade (one after the
other, with a memory), naming (all of them as models).

What this does not protect against: judges that are right less often than about two times in three rank no better than
chance, however many they are (docs/swarm.md has the curves); judges that collude with more than half of the weight.
"""
