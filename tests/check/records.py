"""What is asked for, what is signed for it, and the records that prove it: read and checked without
any code of this repository, for whatever has requests, signatures and receipts in it.
"""

import functools
import json
import re

import rlp
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_keys import keys as eth_keys
from eth_utils import keccak

from formats import Checkpoint, cbor, inclusion_root, need, sha256, unhex, verify_ed25519

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

# The closed list; a code's place is its number in a record.
CODES = """frozen no_policy policy_expired malformed too_large unknown_key unknown_credential
bad_stamp wrong_scheme no_grant ambiguous_grant deny_rule payee_not_listed unknown_asset
domain_mismatch wrong_payer over_per_tx_cap limit_exceeded fee_too_high outside_hours
validity_too_long expired grant_expired over_tiers raw_hash action_not_allowed request_id_reused
table_full unknown_request approver_not_allowed approval_mismatch overflow rate_limited busy
bad_path key_not_live governance_refused outcome_unknown""".split()

# What these amounts are of, by chain and contract: public knowledge, not the demo's.
TOKENS = {
    ("eip155:8453", "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"): "usdc_base",
    ("eip155:1", "0xdac17f958d2ee523a2206206994597c13d831ec7"): "usdt",
    ("eip155:1", None): "eth",
}
RECEIPT_FIELDS = {"record", "index", "proof", "checkpoint", "request_record", "request_index",
                  "request_proof", "request_checkpoint"}


def items(value, what):
    need(isinstance(value, list), f"`{what}` is not a list")
    return value


def text(value, pattern, what):
    need(isinstance(value, str) and re.fullmatch(pattern, value) is not None,
         f"`{str(value)[:80]}` is not a {what}")
    return value


def whole(value, what, low=0):
    need(isinstance(value, int) and not isinstance(value, bool) and value >= low,
         f"`{str(value)[:80]}` is not a {what}")
    return value


def no_duplicates(pairs):
    need(len({key for key, _ in pairs}) == len(pairs), "a repeated field")
    return dict(pairs)


class Transaction:
    """An unsigned transaction's fields, and the digest that is signed for it."""

    def __init__(self, unsigned):
        self.kind = unsigned[0] if unsigned and unsigned[0] < 0x80 else None
        body = unsigned if self.kind is None else unsigned[1:]
        self.items = rlp.decode(body, strict=True)
        need(rlp.encode(self.items) == body, "the transaction is not canonical RLP")
        number = lambda at: int.from_bytes(self.items[at], "big")
        if self.kind is None:
            need(len(self.items) == 9 and self.items[7:] == [b"", b""], "not an EIP-155 transaction")
            self.chain, (to, value, data) = number(6), self.items[3:6]
            self.fee = number(1) * number(2)
        else:
            counts = {1: 8, 2: 9}
            need(counts.get(self.kind) == len(self.items), "not an EIP-2930 or EIP-1559 transaction")
            first = self.kind + 3
            self.chain, (to, value, data) = number(0), self.items[first:first + 3]
            self.fee = number(first - 2) * number(first - 1)
        self.to, self.value, self.data = to, int.from_bytes(value, "big"), data
        self.digest = keccak(unsigned)

    def signed_is(self, raw, signature):
        """Whether `raw` is this transaction with this signature and nothing else."""
        r, s, v = signature[:32].lstrip(b"\0"), signature[32:64].lstrip(b"\0"), signature[64] - 27
        if self.kind is None:
            v = (v + 35 + 2 * self.chain).to_bytes(32, "big").lstrip(b"\0")
            return raw == rlp.encode(self.items[:6] + [v, r, s])
        v = b"\x01" if v else b""
        return raw == bytes([self.kind]) + rlp.encode(self.items + [v, r, s])

    def moves(self):
        """(asset, amount) of what it moves: the native value and the most that its gas can cost,
        and the tokens of a transfer."""
        chain = f"eip155:{self.chain}"
        moves = [(TOKENS.get((chain, None)), self.value + self.fee)]
        if len(self.data) == 68 and self.data[:4] == keccak(b"transfer(address,uint256)")[:4]:
            asset = TOKENS.get((chain, "0x" + self.to.hex()))
            moves.append((asset, int.from_bytes(self.data[36:], "big")))
        return moves


def typed_data_moves(data):
    if data.get("primaryType") != "TransferWithAuthorization":
        return []
    domain = data["domain"]
    token = f"eip155:{domain['chainId']}", domain["verifyingContract"].lower()
    return [(TOKENS.get(token), int(data["message"]["value"]))]


@functools.cache
def typed_data_digest(data):
    return _hash_eip191_message(encode_typed_data(full_message=json.loads(data)))


@functools.cache
def recover(digest, signature):
    need(len(signature) == 65 and signature[64] in (27, 28), "not r, s and v of 27 or 28")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    need(0 < r < N and 0 < s <= N // 2, "r or s is out of range, or s is high")
    parsed = eth_keys.Signature(signature_bytes=signature[:64] + bytes([signature[64] - 27]))
    return parsed.recover_public_key_from_msg_hash(digest)


class Log:
    """The log of one cluster and the keys of that cluster: what receipts and signatures are held
    against. Cosigners are (node, verifier key): two boots of one node count once."""

    def __init__(self, genesis, incarnation, threshold):
        self.genesis, self.incarnation, self.threshold = genesis, incarnation, threshold
        self.keys = {}  # name: (scheme, public key)
        self.cosigner_keys, self.nodes_of = [], {}
        self.roots = {}  # size of each checkpoint seen, and its root

    def origin(self):
        return f"casemate/{self.genesis.hex()}/{self.incarnation}"

    def learn_cosigners(self, cosigners):
        for node, key in cosigners:
            need(key.kind == 4, "a cosigner's key of another type")
            need(key.name.startswith(self.origin() + "/"), "a cosigner of another log")
            if self.nodes_of.setdefault(key.name, node) != node:
                need(False, "two cosigners with one name")
            if all(key.name != known.name for known in self.cosigner_keys):
                need(all(key.key != known.key for known in self.cosigner_keys),
                     "two cosigners with one key")
                self.cosigner_keys.append(key)

    def learn_key(self, name, scheme, public_key, address):
        text(name, r"[a-z0-9._-]{1,64}", "key name")
        if scheme == "ecdsa-secp256k1":
            public = eth_keys.PublicKey.from_compressed_bytes(unhex(public_key, 33))
            need(unhex(address, 20) == public.to_canonical_address(), "another address")
        else:
            need(scheme == "ed25519", f"scheme `{scheme}`")
            public = unhex(public_key, 32)
            need(address is None, "an address of an Ed25519 key")
        need(self.keys.setdefault(name, (scheme, public)) == (scheme, public),
             f"two keys `{name}`")

    def receipt(self, value):
        receipt = value["receipt"]
        need(isinstance(receipt, dict) and set(receipt) == RECEIPT_FIELDS,
             "a receipt with unknown or missing fields")
        return receipt

    def checkpoint(self, value):
        """A checkpoint of this log, cosigned by enough of its nodes."""
        note = Checkpoint(value)
        need(note.origin == self.origin(), f"a checkpoint of log `{note.origin}`")
        signed = {self.nodes_of[name] for name in note.cosigners(self.cosigner_keys)}
        need(len(signed) >= self.threshold, f"{len(signed)} of {self.threshold} nodes cosigned")
        need(self.roots.setdefault(note.size, note.root) == note.root,
             f"two roots of {note.size} records: a split view")
        return note

    def record(self, receipt, prefix=""):
        """Follows a record's bytes to a cosigned root, and gives its index, time and parts."""
        leaf, index = unhex(receipt[prefix + "record"]), whole(receipt[prefix + "index"], "index")
        note = self.checkpoint(receipt[prefix + "checkpoint"])
        proof = [unhex(node, 32) for node in items(receipt[prefix + "proof"], "proof")]
        need(inclusion_root(leaf, index, note.size, proof) == note.root, "the proof leads elsewhere")
        record = cbor(leaf)
        need(record[0] == 1 and record[1] == index, "the record has another version or index")
        entry, verdict = cbor(record[4]), cbor(record[5])
        return index, record[2], record[3], entry[1], verdict

    def digest_of(self, value):
        """(digest, what it moves, transaction) of what was asked, as it is signed."""
        given = value["input"]
        if value["kind"] == "message":
            return sha256(b"casemate/message/v1\0" + self.genesis + unhex(given)), [], None
        if value["kind"] == "hash":
            return unhex(given, 32), [], None
        if value["kind"] == "tx":
            transaction = Transaction(unhex(given))
            return transaction.digest, transaction.moves(), transaction
        need(isinstance(given, dict), "typed data is not an object")
        return typed_data_digest(json.dumps(given)), typed_data_moves(given), None

    def signature(self, value, digest, transaction):
        need(value["key"] in self.keys, f"no key `{value['key']}`")
        scheme, public = self.keys[value["key"]]
        signature = unhex(value["signature"], 65 if scheme == "ecdsa-secp256k1" else 64)
        if scheme == "ed25519":
            need(value["kind"] in ("message", "hash"), "Ed25519 signs no EVM payload here")
            need(value["path"] != "m" or verify_ed25519(public, signature, digest),
                 "the signature does not verify")
            return
        signer = recover(digest, signature)
        # a child's key follows from the chain code, which is not printed; what it signs names it
        need((signer == public) == (value["path"] == "m"), "the signature is by another key")
        if value["kind"] == "typed_data":
            again = Account.recover_message(encode_typed_data(full_message=value["input"]),
                                            signature=signature)
            need(again == signer.to_checksum_address(), "eth-account recovers another address")
            payer = value["input"]["message"].get("from", again)
            need(payer.lower() == again.lower(), "the payer is not the signer")
        if value["kind"] == "tx":
            raw = unhex(value["raw_transaction"])
            need(transaction.signed_is(raw, signature), "the raw transaction is another")
            sender = Account.recover_transaction(raw)
            need(sender == signer.to_checksum_address(), "the raw transaction's sender is another")

    def signed_receipt(self, value, digest):
        """The record of this very signature, behind one that allowed exactly this; gives the
        ledger's time of the latter."""
        receipt = self.receipt(value)
        index, _, kind, body, _ = self.record(receipt)
        need(kind == "signed" and body[0] == 5, "the receipt's record is not of a signature")
        credential, request_id, signature = body[1]
        need(request_id == unhex(value["id"]), "the receipt is of another request")
        need(signature[:64] == unhex(value["signature"])[:64], "the receipt is of another signature")
        before, time, kind, body, verdict = self.record(receipt, "request_")
        need(before < index, "signed before it was allowed")
        need(verdict[0] == 0, "the request's record does not allow it")
        allowed = verdict[1][0]
        path = "/".join(["m", *map(str, allowed[3])])
        need((allowed[0], allowed[2], path) == (value["principal"], value["key"], value["path"]),
             "the record allows another principal, key or path")
        need(allowed[5] == digest, "the record allows another digest")
        if kind == "request":
            self.entry_is(value, body, credential)
        else:
            need(kind == "approval", f"the request's record is of kind `{kind}`")
            approval = json.loads(body[1][0], object_pairs_hook=no_duplicates)
            need(approval["request_id"] == value["id"], "the approval is of another request")
            need(unhex(approval["credential"], 32) == credential, "the approval is of another's")
        return time

    def entry_is(self, value, body, credential=None):
        """The entry holds, byte for byte under the requester's stamp, what was asked."""
        need(body[0] == 0, "the entry is not a request")
        stamp, asked = body[1]
        asked = json.loads(asked, object_pairs_hook=no_duplicates)
        need(credential in (None, stamp[0]), "the signature's record names another credential")
        need((asked["request_id"], asked["key"], asked.get("path", "m"), asked["kind"])
             == (value["id"], value["key"], value["path"], value["kind"]),
             "the entry asks for something else")
        need(asked["input"] == value["input"], "the entry has another input")

    def denied_receipt(self, value):
        receipt = self.receipt(value)
        extra = [receipt[f"request_{part}"] for part in ("record", "index", "proof", "checkpoint")]
        need(extra == [None] * 4, "a denial has one record")
        _, _, kind, body, verdict = self.record(receipt)
        need(kind == "request" and verdict[0] == 2, "the receipt's record is of no denial")
        said, denial = verdict[1][0], value["denial"]
        need(CODES[said[0]] == denial["code"], "the record has another code")
        need(said.get(1) == denial["grant"], "the record names another grant")
        self.entry_is(value, body)
