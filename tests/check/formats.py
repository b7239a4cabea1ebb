"""The formats that the demo's output is made of, read without any code of this repository.

CBOR (RFC 8949, the deterministic subset), RFC 6962 inclusion proofs, and C2SP signed notes with
`tlog-cosignature` lines, each as its specification says.
"""

import base64
import functools
import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):
    """Something is not what it should be; the text says what."""


def need(condition, text):
    if not condition:
        raise Wrong(text)


def sha256(data):
    return hashlib.sha256(data).digest()


def unhex(text, length=None):
    need(isinstance(text, str) and re.fullmatch(r"0x([0-9a-f]{2})*", text) is not None,
         f"`{str(text)[:60]}` is not 0x and lower-case hex")
    data = bytes.fromhex(text[2:])
    need(length is None or len(data) == length, f"{len(data)} bytes where {length} are expected")
    return data


def cbor(data):
    """Decodes exactly one item of deterministic CBOR: shortest forms, no floats, no tags."""
    item, end = _cbor_item(data, 0, 0)
    need(end == len(data), "bytes behind the CBOR item")
    return item


def _cbor_head(data, at):
    need(at < len(data), "CBOR ends early")
    major, low = data[at] >> 5, data[at] & 31
    if low < 24:
        return major, low, at + 1
    need(low <= 27, "an indefinite or reserved length in CBOR")
    size = 1 << (low - 24)
    need(at + 1 + size <= len(data), "CBOR ends early")
    value = int.from_bytes(data[at + 1:at + 1 + size], "big")
    need(value >= (24 if size == 1 else 1 << (4 * size)), "a longer CBOR head than needed")
    return major, value, at + 1 + size


def _cbor_item(data, at, depth):
    need(depth < 32, "CBOR nests too deep")
    major, value, at = _cbor_head(data, at)
    if major == 0:
        return value, at
    if major == 1:
        return -1 - value, at
    if major in (2, 3):
        need(at + value <= len(data), "CBOR ends early")
        part = data[at:at + value]
        return (part if major == 2 else part.decode("utf-8")), at + value
    if major == 4:
        need(value <= len(data), "a CBOR array longer than its input")
        items = []
        for _ in range(value):
            item, at = _cbor_item(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        need(value <= len(data), "a CBOR map longer than its input")
        items = {}
        for _ in range(value):
            key, at = _cbor_item(data, at, depth + 1)
            need(isinstance(key, int) and (not items or key > max(items)), "CBOR keys out of order")
            items[key], at = _cbor_item(data, at, depth + 1)
        return items, at
    need(major == 7 and value in (20, 21, 22), "a CBOR tag, float or unknown value")
    return {20: False, 21: True, 22: None}[value], at


def inclusion_root(leaf, index, size, proof):
    """The root that an inclusion proof leads to: RFC 9162, section 2.1.3.2."""
    need(0 <= index < size, f"leaf {index} is outside a tree of {size}")
    at, last, node = index, size - 1, sha256(b"\x00" + leaf)
    for sibling in proof:
        need(last > 0, "the proof is too long")
        if at & 1 or at == last:
            node = sha256(b"\x01" + sibling + node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = sha256(b"\x01" + node + sibling)
        at, last = at >> 1, last >> 1
    need(last == 0, "the proof is too short")
    return node


@functools.cache
def verify_ed25519(key, signature, message):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


class VerifierKey:
    """A C2SP verifier key, `<name>+<key id>+<base64 of type and key>`, of type 0x01 or 0x04."""

    def __init__(self, text):
        parts = text.split("+", 2)
        need(len(parts) == 3, f"`{text[:80]}` is not a verifier key")
        self.name, key_id, data = parts
        try:
            data = base64.b64decode(data, validate=True)
        except ValueError:
            raise Wrong(f"`{text[:80]}` is not a verifier key") from None
        need(len(data) == 33 and data[0] in (1, 4), "a verifier key of another type or length")
        self.kind, self.key = data[0], data[1:]
        self.id = sha256(self.name.encode() + b"\n" + data)[:4]
        need(key_id == self.id.hex(), f"the id of `{self.name}` is not its key's")


class Checkpoint:
    """A C2SP checkpoint as a signed note."""

    def __init__(self, text):
        need(isinstance(text, str), "a checkpoint is a text")
        body, blank, lines = text.rpartition("\n\n")
        need(blank and lines.endswith("\n"), "a note has a blank line and ends in a newline")
        self.text, self.lines = body + "\n", []
        for line in lines[:-1].split("\n"):
            match = re.fullmatch(r"— ([^\s+]+) ([A-Za-z0-9+/]+=*)", line)
            need(match, f"`{line[:80]}` is not a signature line")
            self.lines.append((match[1], base64.b64decode(match[2], validate=True)))
        parts = self.text.split("\n")
        need(len(parts) == 4 and parts[3] == "", "a checkpoint has three lines")
        self.origin = parts[0]
        need(re.fullmatch(r"0|[1-9][0-9]*", parts[1]), "the size is not a plain number")
        self.size, self.root = int(parts[1]), base64.b64decode(parts[2], validate=True)
        need(len(self.root) == 32 and base64.b64encode(self.root).decode() == parts[2],
             "the root is not base64 of 32 bytes")

    def cosigners(self, keys):
        """The names of the keys whose cosignature is under it. A known key's bad line refuses
        the whole note."""
        good = set()
        for name, data in self.lines:
            for key in keys:
                if key.kind == 4 and (name, data[:4]) == (key.name, key.id):
                    need(len(data) == 4 + 8 + 64, f"the cosignature of `{name}` has another length")
                    time = int.from_bytes(data[4:12], "big")
                    message = f"cosignature/v1\ntime {time}\n{self.text}".encode()
                    need(verify_ed25519(key.key, data[12:], message),
                         f"the cosignature of `{name}` does not verify")
                    good.add(name)
        return good
