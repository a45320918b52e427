"""grpcio's asyncio API over TLS with a self-signed certificate; messages are bytes, no protobuf."""

from __future__ import annotations

import datetime
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mesh_calls import run

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def certificate() -> tuple[bytes, bytes]:
    """(key, certificate) in PEM, for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, built.public_bytes(pem)


async def echo(body: bytes, context: Any) -> bytes:
    return body


async def size(body: bytes, context: Any) -> bytes:
    return len(body).to_bytes(8, "big")


class Mesh:
    async def listen(self, carrier: str) -> dict[str, Any]:
        key, chain = certificate()
        self.server = grpc.aio.server(options=UNLIMITED)
        methods = {"echo": grpc.unary_unary_rpc_method_handler(echo), "size": grpc.unary_unary_rpc_method_handler(size)}
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("mesh", methods),))
        port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
        await self.server.start()
        return {"port": port, "certificate": chain.decode()}

    async def connect(self, port: int, certificate: str) -> dict[str, Any]:
        credentials = grpc.ssl_channel_credentials(certificate.encode())
        options = [*UNLIMITED, ("grpc.ssl_target_name_override", "localhost")]
        self.channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
        self.echo = self.channel.unary_unary("/mesh/echo")
        self.size = self.channel.unary_unary("/mesh/size")
        await self.echo(b"warm")
        return {"path": "direct"}


if __name__ == "__main__":
    run(Mesh())
