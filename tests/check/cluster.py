"""A running cluster from outside, with no code of this repository: its HTTP API, stamps, and what its
nodes sign. Only the genesis id and the root certificate of the cluster file are believed.
"""

import base64
import hashlib
import http.client
import json
import os
import time
import urllib.parse

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils

from formats import VerifierKey, cbor, need, sha256, unhex, verify_ed25519
from records import no_duplicates

ALGORITHMS = {"p256": 1, "ed25519": 2}
MAX_ANSWER = 1 << 26


def tagged(tag, *parts):
    """H(tag, part…) of docs/FORMATS.md."""
    data = tag.encode() + b"\0"
    return sha256(data + b"".join(len(part).to_bytes(8, "big") + part for part in parts))


class Credential:
    """A key that stamps."""

    def __init__(self, value):
        self.principal, self.roles, self.algorithm = value["principal"], value["roles"], value["algorithm"]
        secret = unhex(value["secret"], 32)
        if self.algorithm == "ed25519":
            self.key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
            form = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        else:
            need(self.algorithm == "p256", f"algorithm `{self.algorithm}`")
            self.key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
            form = serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        self.public = self.key.public_key().public_bytes(*form)
        self.id = sha256(bytes([ALGORITHMS[self.algorithm]]) + self.public)

    def sign(self, message):
        if self.algorithm == "ed25519":
            return self.key.sign(message)
        r, s = utils.decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def stamp(self, **part):
        """The value of a `Casemate-Stamp` header over genesis, incarnation, method and body."""
        now = int(time.time() * 1000)
        part = {"issued": now - 1000, "expires": now + 60_000, "nonce": os.urandom(16), **part}
        preimage = b"".join([
            b"casemate/stamp/v1\0", part["genesis"], part["incarnation"].to_bytes(8, "big"), self.id,
            len(part["method"]).to_bytes(2, "big"), part["method"].encode(),
            part["issued"].to_bytes(8, "big"), part["expires"].to_bytes(8, "big"), part["nonce"],
            sha256(part["body"])])
        signature = base64.urlsafe_b64encode(self.sign(preimage)).rstrip(b"=").decode()
        return ".".join(["v1", self.id.hex(), str(part["issued"]), str(part["expires"]),
                         part["nonce"].hex(), signature])


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body, object_pairs_hook=no_duplicates)


def exchange(url, method, path, body=None, headers=None, timeout=60):
    """One exchange over a connection of its own."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        chunked = (headers or {}).get("transfer-encoding") == "chunked"
        connection.request(method, path, body=body, headers=headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        data = answer.read(MAX_ANSWER)
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, data)
    finally:
        connection.close()


def loose_cbor(data, at=0):
    """CBOR as attestation documents have it, in no deterministic form: (item, end)."""
    major, low = data[at] >> 5, data[at] & 31
    if low == 31 and major in (4, 5):
        items, at = [], at + 1
        while data[at] != 0xff:
            item, at = loose_cbor(data, at)
            items.append(item)
        return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at + 1
    need(low <= 27, "an indefinite or reserved length in CBOR")
    if low < 24:
        value, at = low, at + 1
    else:
        size = 1 << (low - 24)
        value, at = int.from_bytes(data[at + 1:at + 1 + size], "big"), at + 1 + size
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        need(at + value <= len(data), "CBOR ends early")
        part = data[at:at + value]
        return (part if major == 2 else part.decode()), at + value
    if major == 4:
        items = []
        for _ in range(value):
            item, at = loose_cbor(data, at)
            items.append(item)
        return items, at
    if major == 5:
        items = {}
        for _ in range(value):
            key, at = loose_cbor(data, at)
            need(key not in items, "a repeated key in CBOR")
            items[key], at = loose_cbor(data, at)
        return items, at
    if major == 6:
        return loose_cbor(data, at)
    return {20: False, 21: True, 22: None}[value], at


def cbor_bytes(data):
    """The head of a CBOR byte string, and the string."""
    size = len(data)
    head = (bytes([0x40 + size]) if size < 24 else bytes([0x58, size]) if size < 256
            else b"\x59" + size.to_bytes(2, "big"))
    return head + data


def attested(document, root_pem, nonce):
    """The payload of an attestation document that chains to the root and is over this nonce."""
    cose, end = loose_cbor(document)
    need(end == len(document) and len(cose) == 4, "not a COSE_Sign1")
    protected, _, payload, signature = cose
    need(cbor(protected) == {1: -35}, "not signed with ES384")
    said, end = loose_cbor(payload)
    need(end == len(payload), "bytes behind the payload")
    root = x509.load_pem_x509_certificate(root_pem.encode())
    chain = [x509.load_der_x509_certificate(der) for der in said["cabundle"] + [said["certificate"]]]
    need(chain[0] == root, "another root")
    now = time.time()
    for issuer, certificate in zip(chain, chain[1:]):
        certificate.verify_directly_issued_by(issuer)
    for certificate in chain:
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        need(begins.timestamp() <= now + 5 and now <= ends.timestamp(), "a certificate out of date")
    need(len(signature) == 96, "a signature of another length")
    der = utils.encode_dss_signature(int.from_bytes(signature[:48], "big"),
                                     int.from_bytes(signature[48:], "big"))
    message = b"\x84\x6aSignature1" + cbor_bytes(protected) + b"\x40" + cbor_bytes(payload)
    try:
        chain[-1].public_key().verify(der, message, ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        need(False, "the document's signature does not verify")
    need(said["nonce"] == nonce, "the document is over another nonce")
    need(abs(now * 1000 - said["timestamp"]) < 120_000, "the document is old")
    need(any(said["pcrs"][0]), "PCR0 is zero: an enclave in debug mode")
    return said


class Cluster:
    """The cluster of a cluster file."""

    def __init__(self, file):
        need(file["schema"] == "casemate.cluster/1", f"schema `{file['schema']}`")
        self.genesis, self.root = unhex(file["genesis_id"], 32), file["trust_root_pem"]
        self.urls = {node["name"]: node["url"] for node in file["nodes"]}
        self.credentials = {value["principal"]: Credential(value) for value in file["credentials"]}
        record = unhex(file["genesis"])
        need(tagged("casemate/genesis/v1", record) == self.genesis, "the genesis record is another's")
        self.manifest = cbor(record)[0]
        self.threshold = self.manifest[2]
        self.roster = {node[0]: node for node in self.manifest[3]}
        need(set(self.roster) == set(self.urls), "the file's nodes are not the manifest's")
        root_der = x509.load_pem_x509_certificate(self.root.encode()).public_bytes(
            serialization.Encoding.DER)
        need(hashlib.sha256(root_der).digest() == self.manifest[10], "another root than the manifest's")
        self.incarnation = 0
        self.boots = {}  # boot id: (node, key)

    def get(self, node, path, **more):
        return exchange(self.urls[node], "GET", path, **more)

    def reply(self, node, route, number, boot_key=None):
        """What a node says to a question over a fresh nonce, in its boot's hand."""
        nonce = os.urandom(32)
        answer = self.get(node, f"/v1/{route}?nonce=0x{nonce.hex()}")
        need(answer.status == 200, f"{route}: status {answer.status}: {answer.body[:200]}")
        signed = cbor(unhex(answer.json()["signed_reply"]))
        kind, content = cbor(signed[0])
        need(kind == number, f"a reply of kind {kind}")
        key = boot_key(content) if boot_key else self.boots[signed[1]][1]
        message = b"casemate/reply/v1\0" + tagged("casemate/reply/v1", self.genesis, nonce, signed[1],
                                                  sha256(signed[0]))
        need(verify_ed25519(key, signed[2], message), "the reply is not in that boot's hand")
        return signed[1], content[0], nonce, answer.json()

    def attest(self, node):
        """Attests the boot that answers for a node, and remembers its key."""
        boot, said, nonce, _ = self.reply(node, "attestation", 0, lambda content: content[0][1])
        name, key, channel_key, own_nonce, version, document = (said[n] for n in range(6))
        need(name == node, f"node `{name}` answers for `{node}`")
        need(boot == tagged("casemate/boot/v1", key, channel_key), "the boot's id is not its keys'")
        payload = attested(document, self.root, nonce)
        bound = tagged("casemate/attested-boot/v1", self.genesis, node.encode(), boot, own_nonce,
                       version.to_bytes(8, "big"))
        need(payload["user_data"] == bound, "the document binds another boot")
        pcrs = payload["pcrs"]
        images = [(image[0], image[1], image[2]) for image in self.manifest[4]]
        need((pcrs[0], pcrs[1], pcrs[2]) in images, "an image that the manifest does not accept")
        need(pcrs[3] == self.roster[node][2], "another role than the manifest's")
        self.boots[boot] = (node, key)
        return boot

    def view(self, node):
        """The cluster as a node has applied it: signed CBOR by its keys, and the JSON beside it."""
        _, view, _, body = self.reply(node, "cluster", 1)
        need(view[0] == self.genesis and view[2] == node, "a view of something else")
        return view, body["cluster"]

    def cosigner(self, boot, key):
        """A boot's verifier key, as signed notes have it."""
        name = f"casemate/{self.genesis.hex()}/{self.incarnation}/{boot.hex()}"
        data = b"\x04" + key
        key_id = sha256(name.encode() + b"\n" + data)[:4].hex()
        return VerifierKey(f"{name}+{key_id}+{base64.b64encode(data).decode()}")

    def post(self, node, path, body, header, value, timeout=60):
        headers = {"content-type": "application/json", header: value}
        return exchange(self.urls[node], "POST", path, body, headers, timeout)

    def stamp(self, who, method, body, /, **other):
        """A stamp of somebody for this cluster; `other` puts something else in its parts."""
        part = {"genesis": self.genesis, "incarnation": self.incarnation, "method": method, "body": body}
        return self.credentials[who].stamp(**{**part, **other})

    def ask(self, node, who, body, not_yet=(503, 504)):
        """A request, stamped, asked until the node has an answer to it."""
        until = time.time() + 60
        while True:
            stamp = self.stamp(who, "requests.create", body)
            answer = self.post(node, "/v1/requests", body, "casemate-stamp", stamp)
            if answer.status not in not_yet or time.time() > until:
                return answer
            time.sleep(0.3)

    def approve(self, node, who, body):
        stamp = self.stamp(who, "approvals.create", body)
        return self.post(node, "/v1/approvals", body, "casemate-stamp", stamp)

    def denial(self, answer):
        """The denial of a problem, checked to be in the hand of a boot that is known."""
        problem = answer.json()
        encoded = unhex(problem["signed_denial"])
        signed = cbor(encoded)
        need(signed[5] in self.boots, "a denial by no attested boot")
        need(encoded[-64:] == signed[6], "the signature is not the last field")
        bare = encoded[:-64] + bytes(64)
        message = b"casemate/denial/v1\0" + tagged("casemate/denial/v1", self.genesis, bare)
        need(verify_ed25519(self.boots[signed[5]][1], signed[6], message),
             "the denial is not in its boot's hand")
        return signed
