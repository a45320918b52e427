"""How the dialer proves its key, inside a TLS channel whose server has already proven its own.

    server -> client   "SHOALTCP", lowest and highest version, nonce of 32 random bytes
    client -> server   version, client key, signature over (version, nonce, server id, client id)
    server -> client   0, or 1 and a reason; then frames

Why that is enough. The client signs only after it has checked that the channel ends at the key it wants, so nobody
stands between. Replay: the nonce is new for every connection and checked by the server that made it. Relay: a server M
that is dialled by C and dials S at the same time can hand S's nonce to C, but C signs M's id into the statement, since
M's key is the one it checked; S finds another server's id and refuses. Another protocol: the purpose is signed too.
A signature proves to third parties that C once dialled the server named in it, and nothing more.

What this does not protect against: floods of honest handshakes (`door` bounds them), or an observer who sees which
addresses talk. The server's key is visible only inside TLS, the client's only to the server.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoal.core.errors import PeerFault, Unsupported
from shoal.crypto.keys import PUBLIC_BYTES, SIGNATURE_BYTES, PrivateKey, is_signature
from shoal.mesh.peer_id import PeerId

MAGIC = b"SHOALTCP"
PURPOSE = "shoal tcp hello v1"
LOWEST, HIGHEST = 1, 1
NONCE_BYTES = 32
SERVER_HELLO_BYTES = len(MAGIC) + 2 + NONCE_BYTES
CLIENT_HELLO_BYTES = 1 + PUBLIC_BYTES + SIGNATURE_BYTES
VERDICT_BYTES = 2
"""Status and the length of the reason that follows."""
MAX_REASON = 200


@dataclass(frozen=True, slots=True)
class ServerHello:
    lowest: int
    highest: int
    nonce: bytes

    def encode(self) -> bytes:
        return MAGIC + bytes((self.lowest, self.highest)) + self.nonce


def parse_server_hello(data: bytes) -> ServerHello:
    """PeerFault for bytes that are none; Unsupported where no version is common."""
    if len(data) != SERVER_HELLO_BYTES or not data.startswith(MAGIC):
        raise PeerFault("what answers is not Shoal over TCP")
    hello = ServerHello(data[8], data[9], data[10:])
    if hello.lowest > HIGHEST or hello.highest < LOWEST:
        newer = "this Shoal" if hello.lowest > HIGHEST else "the other side"
        theirs = f"the other side speaks versions {hello.lowest}-{hello.highest}"
        raise Unsupported(f"{theirs}, this Shoal {LOWEST}-{HIGHEST}; update {newer}")
    return hello


def client_hello(key: PrivateKey, server: PeerId, hello: ServerHello) -> bytes:
    """The proof for `server`, which TLS has shown to be the other end."""
    version = min(hello.highest, HIGHEST)
    signature = key.sign(PURPOSE, _statement(version, hello.nonce, server.key, key.public))
    return bytes((version,)) + key.public + signature


def parse_client_hello(data: bytes, server: PeerId, nonce: bytes) -> PeerId:
    """Who dialled `server`, proven. PeerFault for anything else."""
    if len(data) != CLIENT_HELLO_BYTES:
        raise PeerFault(f"expected {CLIENT_HELLO_BYTES} bytes of hello, found {len(data)}")
    version, public, signature = data[0], data[1 : 1 + PUBLIC_BYTES], data[1 + PUBLIC_BYTES :]
    if not LOWEST <= version <= HIGHEST:
        raise PeerFault(f"expected version {LOWEST} to {HIGHEST}, found {version}")
    if not is_signature(public, PURPOSE, _statement(version, nonce, server.key, public), signature):
        raise PeerFault("the dialer's signature is not for this connection")
    return PeerId(public)


def verdict(reason: str = "") -> bytes:
    """Welcome, or why not."""
    text = reason.encode()[:MAX_REASON]
    return bytes((1 if reason else 0, len(text))) + text


def _statement(version: int, nonce: bytes, server: bytes, client: bytes) -> bytes:
    return bytes((version,)) + nonce + server + client
