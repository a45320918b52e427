"""Hardware attestation, verified offline: what runs on a machine, in the word of the maker of its processor.

What it does: Intel SGX and TDX quotes (by `dcap-qvl`), AMD SEV-SNP reports of Milan and Genoa (by `omne-attest`) and
NVIDIA's recorded GPU tokens are checked against pinned roots at a time that is given, and judged by a policy: debug
off, measurements on an allow-list, a minimum TCB, and `report_data` that binds model, node key and a fresh nonce.
What it does not: fetch anything, make quotes, or decide whether to trust Intel, AMD or NVIDIA.

Files, in reading order: claims (what a quote says, and the verdict), policy (what is accepted), binding (report_data
and nonces), intel, amd, nvidia (bytes to claims), verify (all of it), cache (collateral on disk).

What this does not protect against: an owner with physical access to the memory bus (published attacks on SGX, TDX and
SEV-SNP interpose on it for under $1000), leaked platform keys, a flaw in the measured software, a quote relayed
from another genuine machine that runs the same image (`report_data` names a node's key, not a place), and weaknesses
found after the collateral was issued. A quote's bytes can change without its meaning changing, so its hash is never an
identity.
"""
