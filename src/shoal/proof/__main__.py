"""`python -m shoal.proof DIR INPUT OUTPUT PROOF [MODEL]`: the verifier alone, with numpy, blake3 and cbor2.

MODEL: the digest that the folder must have, in hexadecimal. Exit codes: 0 valid, 1 invalid, 2 nothing was checked.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # nothing here is float: its threads take 0.1 CPU-seconds to start

from shoal.core.errors import ShoalError
from shoal.core.text import plain
from shoal.proof.artifacts_check import check_files, in_words
from shoal.proof.rejected import ProofRejected


def main(arguments: list[str]) -> int:
    if len(arguments) not in (4, 5):
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    folder, inputs, outputs, proof = (Path(argument) for argument in arguments[:4])
    try:
        model, verified = check_files(folder, inputs, outputs, proof, arguments[4] if len(arguments) == 5 else None)
    except ProofRejected as error:
        print(plain(f"INVALID: {error}"))  # noqa: T201
        return 1
    except (ShoalError, OSError) as error:
        print(plain(f"unusable: {error}"), file=sys.stderr)  # noqa: T201
        return 2
    print(in_words(model, verified))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
