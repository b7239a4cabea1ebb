#!/usr/bin/env python3
"""Writes valid.json and refused.json beside it: stamps made without any code of this repository.

Needs `cryptography` (43 or newer, for deterministic ECDSA) from PyPI. The keys are SHA-256 of a
label and guard nothing. Running it again gives the same bytes.
"""

import base64
import hashlib
import json
import pathlib

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

HERE = pathlib.Path(__file__).resolve().parent
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ALGORITHMS = {"p256": 1, "ed25519": 2, "webauthn-p256": 3}
BODY = b'{"request_id":"0x000102030405060708090a0b0c0d0e0f","key":"agent-7","kind":"message","input":"0x68656c6c6f"}'
NOW = 1_795_165_200_000


def label(text):
    return hashlib.sha256(b"casemate stamp vectors: " + text.encode()).digest()


class Credential:
    def __init__(self, algorithm, name):
        self.algorithm, seed = algorithm, label(f"{algorithm} {name}")
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        x962 = serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        if algorithm == "ed25519":
            self.secret = seed
            self.key = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
            self.public = self.key.public_key().public_bytes(*raw)
        else:
            scalar = int.from_bytes(seed, "big") % (N - 1) + 1
            self.secret = scalar.to_bytes(32, "big")
            self.key = ec.derive_private_key(scalar, ec.SECP256R1())
            self.public = self.key.public_key().public_bytes(*x962)
        self.id = hashlib.sha256(bytes([ALGORITHMS[algorithm]]) + self.public).digest()

    def sign(self, message, high_s=None):
        if self.algorithm == "ed25519":
            return self.key.sign(message)
        der = self.key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        r, s = utils.decode_dss_signature(der)
        if high_s is not None and (s > N // 2) != high_s:
            s = N - s
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def stamp(name, credential, *, result="valid", body=BODY, signed=None, now=NOW, tolerance=2_000,
          issued=NOW - 1_000, expires=NOW + 59_000, genesis=None, incarnation=0,
          method="requests.create", key=None, high_s=False, header=None, secret=True):
    """One case. `signed` overrides what is signed; `header` rewrites the header's parts."""
    genesis = genesis or label("genesis")
    nonce = label(f"nonce {name}")[:16]
    said = dict(body=body, genesis=genesis, incarnation=incarnation, method=method,
                issued=issued, expires=expires, credential=credential.id, nonce=nonce)
    said.update(signed or {})
    preimage = b"".join([
        b"casemate/stamp/v1\0", said["genesis"], said["incarnation"].to_bytes(8, "big"),
        said["credential"], len(said["method"]).to_bytes(2, "big"), said["method"].encode(),
        said["issued"].to_bytes(8, "big"), said["expires"].to_bytes(8, "big"), said["nonce"],
        hashlib.sha256(said["body"]).digest(),
    ])
    signature = credential.sign(preimage, high_s)
    parts = ["v1", credential.id.hex(), str(issued), str(expires), nonce.hex(),
             base64.urlsafe_b64encode(signature).rstrip(b"=").decode()]
    text = header(parts) if header else ".".join(parts)
    key = key or credential
    return {
        "name": name, "result": result,
        "algorithm": key.algorithm, "public_key": key.public.hex(), "secret_key": key.secret.hex(),
        "genesis_id": genesis.hex(), "incarnation": incarnation, "method": method,
        "issued_at": issued, "expires_at": expires, "nonce": nonce.hex(), "body": body.hex(),
        "now": now, "tolerance": tolerance,
        "credential": credential.id.hex(), "signed_preimage": preimage.hex(),
        "signature": signature.hex(), "header": text,
    }


def replace(index, change):
    def rewrite(parts):
        parts = list(parts)
        parts[index] = change(parts[index])
        return ".".join(parts)
    return rewrite


def valid():
    for algorithm in ("p256", "ed25519"):
        c = Credential(algorithm, "alice")
        yield stamp(f"{algorithm}: a request", c)
        yield stamp(f"{algorithm}: an approval", c, method="approvals.create", body=b"{}")
        yield stamp(f"{algorithm}: an empty body", c, body=b"")
        yield stamp(f"{algorithm}: a body that is not text", c, body=bytes(range(256)))
        yield stamp(f"{algorithm}: a later incarnation", c, incarnation=2**40 + 7)
        yield stamp(f"{algorithm}: issued this millisecond", c, issued=NOW)
        yield stamp(f"{algorithm}: expires next millisecond", c, expires=NOW + 1)
        yield stamp(f"{algorithm}: the longest life", c, issued=NOW, expires=NOW + 300_000)
        yield stamp(f"{algorithm}: a client's clock ahead by the tolerance", c, issued=NOW + 2_000)
    yield stamp("p256: high s", Credential("p256", "alice"), high_s=True)


def refused():
    for algorithm in ("p256", "ed25519"):
        c, other = Credential(algorithm, "alice"), Credential(algorithm, "bob")
        bad = dict(result="bad_signature")

        def case(name, **options):
            return stamp(f"{algorithm}: {name}", c, **options)

        yield case("another body", signed=dict(body=BODY + b" "), **bad)
        yield case("another method", signed=dict(method="approvals.create"), **bad)
        yield case("another genesis", signed=dict(genesis=label("other genesis")), **bad)
        yield case("another incarnation", signed=dict(incarnation=1), **bad)
        yield case("another time of issue", signed=dict(issued=NOW - 1_001), **bad)
        yield case("another time of expiry", signed=dict(expires=NOW + 59_001), **bad)
        yield case("another nonce", signed=dict(nonce=bytes(16)), **bad)
        yield case("another credential id signed", signed=dict(credential=other.id), **bad)
        yield case("another credential's key", key=other, result="other_credential")
        yield case("expired this millisecond", expires=NOW, result="expired")
        yield case("expired long ago", issued=NOW - 90_000, expires=NOW - 60_000, result="expired")
        yield case("not yet, beyond the tolerance", issued=NOW + 2_001, result="not_yet")
        yield case("a millisecond too long a life", expires=NOW + 299_001, result="life_too_long")
        yield case("times the wrong way round", issued=NOW + 1_500, expires=NOW + 1_000,
                   result="backwards")

        def broken(name, field, header):
            return case(name, header=header, result=f"malformed: {field}")

        yield broken("an empty header", "number of parts", lambda _: "")
        yield broken("a part missing", "number of parts", lambda p: ".".join(p[:5]))
        yield broken("a part too many", "number of parts", lambda p: ".".join([*p, ""]))
        yield broken("a header too long", "length", lambda p: ".".join(p) + "." + "A" * 300)
        yield broken("another version", "version", replace(0, lambda _: "v2"))
        yield broken("a version in upper case", "version", replace(0, str.upper))
        yield broken("a credential in upper case", "credential id", replace(1, str.upper))
        yield broken("a credential with 0x", "credential id", replace(1, lambda t: "0x" + t))
        yield broken("a credential cut short", "credential id", replace(1, lambda t: t[:-2]))
        yield broken("an odd credential", "credential id", replace(1, lambda t: t[:-1]))
        yield broken("a time of issue with a leading zero", "form", replace(2, lambda t: "0" + t))
        yield broken("a time of issue with a plus", "form", replace(2, lambda t: "+" + t))
        yield broken("a negative time of issue", "time of issue", replace(2, lambda t: "-" + t))
        yield broken("an empty time of issue", "time of issue", replace(2, lambda _: ""))
        yield broken("a time of expiry with a leading zero", "form", replace(3, lambda t: "0" + t))
        yield broken("a time of expiry beyond 64 bits", "time of expiry",
                     replace(3, lambda _: str(2**64)))
        yield broken("a time of expiry in hex", "time of expiry", replace(3, lambda t: hex(int(t))))
        yield broken("a nonce in upper case", "nonce",
                     replace(4, lambda t: "A" + t[1:]))
        yield broken("a nonce cut short", "nonce", replace(4, lambda t: t[:-2]))
        yield broken("a nonce too long", "nonce", replace(4, lambda t: t + "00"))
        yield broken("a padded signature", "signature", replace(5, lambda t: t + "=="))
        yield broken("a signature of 63 bytes", "signature", replace(5, lambda t: t[:84]))
        yield broken("a signature of 65 bytes", "signature", replace(5, lambda t: t + "A"))
        yield broken("a signature with bits behind its end", "signature",
                     replace(5, lambda t: t[:-1] + chr(ord(t[-1]) + 1)))
        yield broken("a signature in the other base64", "signature",
                     replace(5, lambda t: "+/" + t[2:]))
        yield broken("a space in front", "version", lambda p: " " + ".".join(p))
        yield broken("a line end behind", "signature", lambda p: ".".join(p) + "\n")
        yield case("a signature of zeros", header=replace(5, lambda _: "A" * 86), **bad)
        yield case("one bit of the signature flipped", **bad,
                   header=replace(5, lambda t: ("B" if t[0] == "A" else "A") + t[1:]))
    yield stamp("webauthn-p256: a passkey does not stamp", Credential("webauthn-p256", "alice"),
                result="passkey_only")


def write(name, about, cases):
    cases = list(cases)
    names = [case["name"] for case in cases]
    assert len(set(names)) == len(names)
    text = json.dumps({"about": about, "cases": cases}, indent=1)
    (HERE / name).write_text(text + "\n")
    print(name, len(cases))


write("valid.json", "stamps that verify; hex without 0x, times in milliseconds", valid())
write("refused.json", "stamps that are refused, each with the reason in `result`; `genesis_id`, "
      "`method`, `body` and the like are what the verifier expects, `signed_preimage` is what was "
      "signed", refused())
