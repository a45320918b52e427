"""The VRF against RFC 9381's own vectors, and against whoever bends a proof."""

from __future__ import annotations

import hashlib

import pytest
from nacl import bindings as sodium

from shoal.crypto.keys import PrivateKey
from shoal.trust import vrf

VECTORS = [  # RFC 9381, appendix B.3: SK, PK, alpha, pi, beta
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "8657106690b5526245a92b003bb079ccd1a92130477671f6fc01ad16f26f723f26f8a57ccaed74ee1b190bed1f479d97"
        "27d2d0f9b005a6e456a35d4fb0daab1268a1b0db10836d9826a528ca76567805",
        "90cf1df3b703cce59e2a35b925d411164068269d7b2d29f3301c03dd757876ff"
        "66b71dda49d2de59d03450451af026798e8f81cd2e333de5cdf4f3e140fdd8ae",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "f3141cd382dc42909d19ec5110469e4feae18300e94f304590abdced48aed5933bf0864a62558b3ed7f2fea45c92a465"
        "301b3bbf5e3e54ddf2d935be3b67926da3ef39226bbc355bdc9850112c8f4b02",
        "eb4440665d3891d668e7e0fcaf587f1b4bd7fbfe99d0eb2211ccec90496310eb"
        "5e33821bc613efb94db5e5b54c70a848a0bef4553a41befc57663b56373a5031",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "9bc0f79119cc5604bf02d23b4caede71393cedfbb191434dd016d30177ccbf8096bb474e53895c362d8628ee9f9ea3c0"
        "e52c7a5c691b6c18c9979866568add7a2d41b00b05081ed0f58ee5e31b3a970e",
        "645427e5d00c62a23fb703732fa5d892940935942101e456ecca7bb217c61c45"
        "2118fec1219202a0edcf038bb6373241578be7217ba85a2687f7a0310b2df19f",
    ),
]


@pytest.mark.parametrize("vector", VECTORS)
def test_the_rfcs_vectors(vector: tuple[str, ...]) -> None:
    seed, public, alpha, proof, beta = map(bytes.fromhex, vector)
    key = PrivateKey(seed)
    assert key.public == public
    assert vrf.prove(key, alpha) == proof
    assert vrf.value(proof) == beta
    assert vrf.verify(public, proof, alpha) == beta


def test_no_bit_of_a_proof_can_change() -> None:
    key = PrivateKey(bytes(range(32)))
    proof = vrf.prove(key, b"a receipt")
    for bit in range(8 * len(proof)):
        bent = bytearray(proof)
        bent[bit // 8] ^= 1 << bit % 8
        assert vrf.verify(key.public, bytes(bent), b"a receipt") is None, f"bit {bit}"


def test_a_proof_is_of_one_key_and_one_input() -> None:
    key, other = PrivateKey(bytes(32)), PrivateKey(bytes([1] * 32))
    proof = vrf.prove(key, b"one")
    assert vrf.verify(key.public, proof, b"two") is None
    assert vrf.verify(other.public, proof, b"one") is None


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_verifies_nothing(length: int) -> None:
    assert vrf.verify(bytes(length), vrf.prove(PrivateKey(bytes(32)), b""), b"") is None


def test_a_key_of_small_order_verifies_nothing() -> None:
    """With Y the neutral element the challenge would bind nothing: U = sB, V = sH for any s, Gamma at will."""
    neutral = (1).to_bytes(32, "little")
    s = (5).to_bytes(32, "little")
    point_h = vrf._encode_to_curve(neutral, b"x")
    gamma = neutral
    u = sodium.crypto_scalarmult_ed25519_base_noclamp(s)
    v = sodium.crypto_scalarmult_ed25519_noclamp(s, point_h)
    forged = gamma + vrf._challenge(neutral, point_h, gamma, u, v) + s
    assert vrf.verify(neutral, forged, b"x") is None


def test_a_scalar_that_is_not_reduced_is_a_second_encoding_and_refused() -> None:
    key = PrivateKey(bytes(32))
    proof = vrf.prove(key, b"x")
    again = (int.from_bytes(proof[48:], "little") + vrf._ORDER).to_bytes(32, "little")
    assert vrf.verify(key.public, proof[:48] + again, b"x") is None


def test_values_look_uniform() -> None:
    """Every bit of the value is set about half the time over 400 inputs: within five standard deviations."""
    key = PrivateKey(hashlib.sha256(b"seed").digest())
    values = [int.from_bytes(vrf.value(vrf.prove(key, bytes([n % 256, n // 256]))), "big") for n in range(400)]
    for bit in range(0, 512, 7):
        assert abs(sum(v >> bit & 1 for v in values) - 200) < 50
