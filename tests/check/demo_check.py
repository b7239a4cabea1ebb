#!/usr/bin/env python3
"""Checks what `casemate-dev -- demo --json` prints, with no code of this repository.

    demo_check.py FILE              exit status 0 only if everything holds
    demo_check.py --self-test FILE  break FILE in many ways; each must be noticed

Every digest is computed again from what was asked, every signature recovered or verified, every
receipt followed from the record's bytes to a root that enough nodes cosigned, and every sum added
up again. `docs/FORMATS.md` describes the fields. Needs the packages of `requirements.txt`.
"""

import copy
import datetime
import functools
import json
import re
import sys

import rlp
from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data
from eth_keys import keys as eth_keys
from eth_utils import keccak

from formats import (Checkpoint, VerifierKey, Wrong, cbor, inclusion_root, need, sha256, unhex,
                     verify_ed25519)

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

# The closed list; a code's place is its number in a record.
CODES = """frozen no_policy policy_expired malformed too_large unknown_key unknown_credential
bad_stamp wrong_scheme no_grant ambiguous_grant deny_rule payee_not_listed unknown_asset
domain_mismatch wrong_payer over_per_tx_cap limit_exceeded fee_too_high outside_hours
validity_too_long expired grant_expired over_tiers raw_hash action_not_allowed request_id_reused
table_full unknown_request approver_not_allowed approval_mismatch overflow rate_limited busy
bad_path key_not_live governance_refused""".split()

# What the demo must have been denied, and what it must have had signed.
DENIED = {"over_per_tx_cap", "limit_exceeded", "payee_not_listed", "outside_hours",
          "domain_mismatch", "malformed", "raw_hash", "action_not_allowed"}
SIGNED = {("tx", "ecdsa-secp256k1"), ("typed_data", "ecdsa-secp256k1"), ("message", "ed25519")}

FIELDS = {
    "": {"schema", "cluster", "keys", "requests", "bounds", "attack", "checkpoint", "cosigners",
         "checks"},
    "cluster": {"genesis_id", "incarnation", "threshold", "nodes"},
    "key": {"name", "scheme", "public_key", "address"},
    "request": {"id", "step", "key", "path", "principal", "kind", "input", "outcome", "denial",
                "digest", "signature", "raw_transaction", "receipt"},
    "denial": {"code", "grant", "limit", "remaining", "resets_at"},
    "receipt": {"record", "index", "proof", "checkpoint", "request_record", "request_index",
                "request_proof", "request_checkpoint"},
    "bound": {"key", "asset", "window", "amount", "decimals"},
    "attack": {"asked", "signed_total", "bound"},
    "check": {"name", "ok"},
}
# What these amounts are of, by chain and contract: public knowledge, not the demo's.
TOKENS = {
    ("eip155:8453", "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"): "usdc_base",
    ("eip155:1", "0xdac17f958d2ee523a2206206994597c13d831ec7"): "usdt",
    ("eip155:1", None): "eth",
}
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def fields(value, what):
    need(isinstance(value, dict), f"`{what}` is not an object")
    wrong = set(value) ^ FIELDS[what]
    need(not wrong, f"`{what}`: unknown or missing: {', '.join(sorted(wrong))}")
    return value


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


def amount(value):
    return int(text(value, r"0|[1-9][0-9]{0,77}", "decimal amount"))


def time_of(value):
    text(value, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "time in UTC")
    return datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")


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


class Demo:
    """The document under check; each method is one check, and raises `Wrong`."""

    def __init__(self, document):
        self.document = fields(document, "")
        need(document["schema"] == "casemate.demo/1", f"schema `{document['schema']}`")
        cluster = fields(document["cluster"], "cluster")
        self.genesis = unhex(cluster["genesis_id"], 32)
        self.incarnation = whole(cluster["incarnation"], "incarnation")
        self.threshold = whole(cluster["threshold"], "threshold", 2)
        self.nodes = items(cluster["nodes"], "nodes")
        self.requests = items(document["requests"], "requests")
        self.keys = {}
        self.moved = []  # (key, asset, amount, ledger time, step) of every signature
        self.roots = {}  # size of each checkpoint seen, and its root

    def cluster(self):
        for name in self.nodes:
            text(name, r"[a-z0-9-]{1,32}", "node name")
        need(len(set(self.nodes)) == len(self.nodes) > self.threshold, "too few different nodes")
        self.cosigner_keys = [VerifierKey(key) for key in items(self.document["cosigners"], "cosigners")]
        keys = self.cosigner_keys
        need(all(key.kind == 4 for key in keys), "a cosigner's key of another type")
        need(len({key.key for key in keys}) == len({key.name for key in keys}) == len(keys),
             "two cosigners with one key or name")
        need(len(keys) == len(self.nodes), "not one cosigner for each node")
        origin = self.origin()
        need(all(key.name.startswith(origin + "/") for key in keys), "a cosigner of another log")

    def origin(self):
        return f"casemate/{self.genesis.hex()}/{self.incarnation}"

    def key(self, value):
        fields(value, "key")
        name = text(value["name"], r"[a-z0-9._-]{1,64}", "key name")
        need(name not in self.keys, f"two keys `{name}`")
        if value["scheme"] == "ecdsa-secp256k1":
            public = eth_keys.PublicKey.from_compressed_bytes(unhex(value["public_key"], 33))
            need(unhex(value["address"], 20) == public.to_canonical_address(), "another address")
        else:
            need(value["scheme"] == "ed25519", f"scheme `{value['scheme']}`")
            public = unhex(value["public_key"], 32)
            need(value["address"] is None, "an address of an Ed25519 key")
        self.keys[name] = (value["scheme"], public)

    def checkpoint(self, value):
        """A checkpoint of this log, cosigned by enough of its nodes."""
        note = Checkpoint(value)
        need(note.origin == self.origin(), f"a checkpoint of log `{note.origin}`")
        signed = note.cosigners(self.cosigner_keys)
        need(len(signed) >= self.threshold, f"{len(signed)} of {self.threshold} cosigners signed")
        need(self.roots.setdefault(note.size, note.root) == note.root,
             f"two roots of {note.size} records: a split view")
        return note

    def newest_checkpoint(self):
        newest = self.checkpoint(self.document["checkpoint"])
        need(newest.size >= max(self.roots), "a receipt is of a newer checkpoint than the newest")

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

    def request(self, value):
        fields(value, "request")
        text(value["id"], r"0x[0-9a-f]{32}", "request id")
        whole(value["step"], "step", 1)
        need(value["step"] <= 7, "there are seven steps")
        text(value["path"], r"m(/(0|[1-9][0-9]{0,9})){0,8}", "path")
        text(value["principal"], r"[a-z0-9._:@-]{1,64}", "principal")
        text(value["kind"], "tx|typed_data|message|hash", "kind")
        digest, moves, transaction = self.digest_of(value)
        if value["digest"] is not None:
            need(unhex(value["digest"], 32) == digest, "the digest is of something else")
        outcome = text(value["outcome"], "signed|denied|pending|error", "outcome")
        for field, outcomes in [("denial", "denied"), ("signature", "signed")]:
            need((value[field] is not None) == (outcome == outcomes), f"`{field}` of one {outcome}")
        need(value["raw_transaction"] is None or value["kind"] == "tx", "a transaction of nothing")
        need(outcome != "error", "the cluster could not serve a request")
        if outcome == "signed":
            need(value["digest"] is not None, "signed with no digest")
            self.signature(value, digest, transaction)
            time = self.signed_receipt(value, digest)
            self.moved += [(value["key"], *move, time, value["step"]) for move in moves]
        elif outcome == "denied":
            self.denial(value["denial"])
            if value["receipt"] is not None:
                self.denied_receipt(value)

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
        receipt = fields(value["receipt"], "receipt")
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

    def denial(self, value):
        fields(value, "denial")
        need(value["code"] in CODES, f"`{value['code']}` is no code")
        for field in ("limit", "remaining"):
            need(value[field] is None or amount(value[field]) >= 0, "")
        if value["code"] in ("payee_not_listed", "over_per_tx_cap", "limit_exceeded", "over_tiers",
                             "outside_hours", "domain_mismatch"):
            need(value["grant"] is not None, "no grant is named")
        if value["code"] in ("over_per_tx_cap", "limit_exceeded"):
            need(value["limit"] is not None and value["remaining"] is not None, "no limit is named")
        if value["code"] in ("limit_exceeded", "outside_hours"):
            time_of(value["resets_at"])
        elif value["resets_at"] is not None:
            time_of(value["resets_at"])

    def denied_receipt(self, value):
        receipt = fields(value["receipt"], "receipt")
        extra = [receipt[f"request_{part}"] for part in ("record", "index", "proof", "checkpoint")]
        need(extra == [None] * 4, "a denial has one record")
        _, _, kind, body, verdict = self.record(receipt)
        need(kind == "request" and verdict[0] == 2, "the receipt's record is of no denial")
        said, denial = verdict[1][0], value["denial"]
        need(CODES[said[0]] == denial["code"], "the record has another code")
        need(said.get(1) == denial["grant"], "the record names another grant")
        self.entry_is(value, body)

    def ids(self):
        """One id is listed again only for a request that waited and then was signed, or for
        another input that was refused; it is signed at most once."""
        listed = [(r["principal"], r["id"], json.dumps(r["input"]), r["outcome"])
                  for r in self.requests]
        need(len(set(listed)) == len(listed), "a request is listed twice")
        signed = [(principal, id_) for principal, id_, _, outcome in listed if outcome == "signed"]
        need(len(set(signed)) == len(signed), "two signatures under one request id")
        inputs = {}
        for principal, id_, given, outcome in listed:
            inputs.setdefault((principal, id_), {}).setdefault(given, set()).add(outcome)
        for outcomes in inputs.values():
            for one in outcomes.values():
                need(len(one) == 1 or one == {"pending", "signed"}, f"one request {sorted(one)}")

    def bound(self, value):
        """No interval of the window's length saw more than the bound, by the ledger's times."""
        fields(value, "bound")
        most, decimals = amount(value["amount"]), whole(value["decimals"], "number of digits")
        need(decimals <= 77 and value["key"] in self.keys, "another key, or too many digits")
        match = re.fullmatch(r"([1-9][0-9]*)(ms|s|m|h|d)", value["window"])
        need(match, f"`{value['window']}` is not a length of time")
        length = int(match[1]) * UNITS[match[2]]
        spent = sorted((time, sum_) for key, asset, sum_, time, _ in self.moved
                       if (key, asset) == (value["key"], value["asset"]))
        for start, _ in spent:
            within = sum(sum_ for time, sum_ in spent if start <= time < start + length)
            need(within <= most, f"{within} of {value['asset']} within {value['window']}")

    def every_asset_is_bounded(self):
        bounded = {(bound["key"], bound["asset"]) for bound in self.document["bounds"]}
        for key, asset, sum_, _, _ in self.moved:
            need(sum_ == 0 or (key, asset) in bounded, f"`{key}` moved `{asset}` with no bound")

    def attack(self):
        attack = fields(self.document["attack"], "attack")
        total, bound = amount(attack["signed_total"]), amount(attack["bound"])
        need(total == bound > 0, f"the attacker got {total} where the bound is {bound}")
        got = sum(sum_ for key, asset, sum_, _, step in self.moved
                  if (key, asset, step) == ("agent-9", "usdc_base", 6))
        need(got == total, f"the signatures of step 6 add up to {got}")
        bounds = [amount(row["amount"]) for row in self.document["bounds"]
                  if (row["key"], row["asset"]) == ("agent-9", "usdc_base")]
        need(bound in bounds, "the bound is none of those listed")
        step6 = sum(request["step"] == 6 for request in self.requests)
        need(whole(attack["asked"], "count") >= step6 > 0, "fewer asked than listed")

    def own_checks(self):
        checks = [fields(check, "check") for check in items(self.document["checks"], "checks")]
        names = [check["name"] for check in checks]
        need(len(set(names)) == len(names) >= 5, "too few different checks")
        failed = [check["name"] for check in checks if check["ok"] is not True]
        need(not failed, f"the demo's own checks failed: {failed}")

    def coverage(self):
        codes = {r["denial"]["code"] for r in self.requests if r["denial"] is not None}
        need(DENIED <= codes, f"never denied: {sorted(DENIED - codes)}")
        signed = {(r["kind"], self.keys[r["key"]][0]) for r in self.requests
                  if r["outcome"] == "signed"}
        need(SIGNED <= signed, f"never signed: {sorted(SIGNED - signed)}")
        steps = {request["step"] for request in self.requests}
        need({1, 2, 3, 4, 5, 6} <= steps, f"only steps {sorted(steps)}")
        proven = [r for r in self.requests if r["outcome"] == "denied" and r["receipt"] is not None]
        need(proven, "no denial has a receipt")


def run(document):
    """(name of each check, what is wrong or None)."""
    results = []

    def check(name, call, *arguments):
        try:
            call(*arguments)
            results.append((name, None))
        except Wrong as wrong:
            results.append((name, str(wrong)))
        except Exception as error:  # whatever a library makes of hostile input is a failure
            results.append((name, f"{type(error).__name__}: {error}"))

    try:
        demo = Demo(document)
    except Exception as error:
        return [("the document's shape", f"{error}")]
    check("cluster and cosigners", demo.cluster)
    for value in items(document["keys"], "keys"):
        check(f"key {value.get('name')}", demo.key, value)
    for number, value in enumerate(demo.requests):
        what = f"request {number}, step {value.get('step')}: {value.get('outcome')} {value.get('kind')}"
        check(what, demo.request, value)
    check("request ids", demo.ids)
    check("newest checkpoint", demo.newest_checkpoint)
    for number, value in enumerate(items(document["bounds"], "bounds")):
        check(f"bound {number}", demo.bound, value)
    check("every asset is bounded", demo.every_asset_is_bounded)
    check("attack", demo.attack)
    check("the demo's own checks", demo.own_checks)
    check("what the demo covers", demo.coverage)
    return results


def failures(document):
    return [(name, wrong) for name, wrong in run(document) if wrong is not None]


def flip(value, at=-1):
    """The same hex with one bit of one byte changed."""
    data = bytearray(unhex(value))
    data[at] ^= 1
    return "0x" + data.hex()


def mutations(document):
    """(what is broken, a function that breaks a copy)."""
    def first(**wanted):
        for number, request in enumerate(document["requests"]):
            if all(request[field] == value for field, value in wanted.items()):
                return number
        raise Wrong(f"no request has {wanted}")

    def proven_denial():
        return next(n for n, r in enumerate(document["requests"]) if r["denial"] and r["receipt"])

    tx, typed = first(outcome="signed", kind="tx"), first(outcome="signed", kind="typed_data")
    message, denied = first(outcome="signed", kind="message"), proven_denial()
    attacked = first(outcome="signed", step=6, key="agent-9")

    def field(number, name, change):
        def apply(d):
            d["requests"][number][name] = change(d["requests"][number][name])
        return apply

    def receipt(number, name, change):
        return field(number, "receipt", lambda r: {**r, name: change(r[name])})

    def high_s(signature):
        data = unhex(signature)
        s = N - int.from_bytes(data[32:64], "big")
        return "0x" + (data[:32] + s.to_bytes(32, "big") + bytes([55 - data[64]])).hex()

    def note(change):
        return lambda d: d.update(checkpoint=change(d["checkpoint"]))

    def put(part, name, value):
        return lambda d: d[part].update({name: value})

    def typed_value(data):
        data = copy.deepcopy(data)
        data["message"]["value"] = str(int(data["message"]["value"]) + 1)
        return data

    return [
        ("another schema", lambda d: d.update(schema="casemate.demo/2")),
        ("an unknown field", lambda d: d.update(more=1)),
        ("a missing field", lambda d: d.pop("bounds")),
        ("an unknown field of a request", lambda d: d["requests"][tx].update(more=1)),
        ("a missing field of a request", lambda d: d["requests"][tx].pop("digest")),
        ("another genesis", put("cluster", "genesis_id", flip(document["cluster"]["genesis_id"]))),
        ("another incarnation", put("cluster", "incarnation", 7)),
        ("a higher threshold", put("cluster", "threshold", len(document["cluster"]["nodes"]))),
        ("hex in upper case", field(tx, "digest", lambda t: "0x" + t[2:].upper())),
        ("hex without 0x", field(tx, "signature", lambda t: t[2:])),
        ("a flipped bit of a transaction's r", field(tx, "signature", lambda t: flip(t, 5))),
        ("a flipped bit of a transaction's s", field(tx, "signature", lambda t: flip(t, 40))),
        ("the other v", field(tx, "signature", lambda t: t[:-2] + {"1b": "1c", "1c": "1b"}[t[-2:]])),
        ("a v of 0 or 1", field(tx, "signature", lambda t: t[:-2] + {"1b": "00", "1c": "01"}[t[-2:]])),
        ("a high s", field(tx, "signature", high_s)),
        ("a signature cut short", field(tx, "signature", lambda t: t[:-2])),
        ("a flipped bit of a message's signature", field(message, "signature", flip)),
        ("a flipped bit of a message", field(message, "input", lambda t: flip("0x00" + t[2:]))),
        ("another digest", field(typed, "digest", flip)),
        ("another amount in typed data", field(typed, "input", typed_value)),
        ("a flipped bit of a transaction", field(tx, "input", lambda t: flip(t, 12))),
        ("a flipped bit of a raw transaction", field(tx, "raw_transaction", lambda t: flip(t, 12))),
        ("a raw transaction missing", field(tx, "raw_transaction", lambda _: None)),
        ("another key's name", field(tx, "key", lambda _: document["requests"][typed]["key"])),
        ("another principal", field(tx, "principal", lambda t: t + "x")),
        ("a child's path", field(tx, "path", lambda t: t + "/9")),
        ("another request id", field(tx, "id", flip)),
        ("the same request twice", lambda d: d["requests"].append(d["requests"][tx])),
        ("no receipt of a signature", field(tx, "receipt", lambda _: None)),
        ("another request's receipt",
         field(tx, "receipt", lambda _: document["requests"][typed]["receipt"])),
        ("a flipped bit of a record", receipt(tx, "record", flip)),
        ("a flipped bit of the record that allowed", receipt(tx, "request_record", flip)),
        ("another index", receipt(tx, "index", lambda n: n + 1)),
        ("a proof with one hash less", receipt(tx, "proof", lambda p: p[:-1])),
        ("a proof with one hash more", receipt(tx, "proof", lambda p: p + ["0x" + "00" * 32])),
        ("a flipped bit of a proof", receipt(tx, "proof", lambda p: [flip(p[0]), *p[1:]])),
        ("a checkpoint without cosignatures",
         receipt(tx, "checkpoint", lambda t: t.split("\n\n")[0] + "\n\n")),
        ("a checkpoint of another size",
         receipt(tx, "checkpoint", lambda t: re.sub(r"\n(\d+)\n", r"\n1\1\n", t, count=1))),
        ("one cosignature only",
         note(lambda t: t.split("\n\n")[0] + "\n\n" + t.split("\n\n")[1].split("\n")[0] + "\n")),
        ("one cosigner's line twice in place of two",
         note(lambda t: t.split("\n\n")[0] + "\n\n" + (t.split("\n\n")[1].split("\n")[0] + "\n") * 2)),
        ("a cosigner's key under two names",
         lambda d: d["cosigners"].__setitem__(1, d["cosigners"][0])),
        ("a stranger as cosigner", lambda d: d["cosigners"].pop()),
        ("a denial's unknown code",
         field(denied, "denial", lambda v: {**v, "code": "because"})),
        ("a denial's other code",
         field(denied, "denial", lambda v: {**v, "code": "busy" if v["code"] != "busy" else "frozen"})),
        ("a denial's other grant", field(denied, "denial", lambda v: {**v, "grant": "none-such"})),
        ("a denial with no denial", field(denied, "denial", lambda _: None)),
        ("a denied request said to be signed", field(denied, "outcome", lambda _: "signed")),
        ("a signed request said to be denied", field(tx, "outcome", lambda _: "denied")),
        ("a signed request left out", lambda d: d["requests"].pop(attacked)),
        ("an attacker who got more", put("attack", "signed_total",
                                         str(int(document["attack"]["signed_total"]) + 1))),
        ("a bound raised to what the attacker claims",
         lambda d: d["attack"].update(signed_total=str(10**30), bound=str(10**30))),
        ("an amount as a number", put("attack", "bound", int(document["attack"]["bound"]))),
        ("an amount with a leading zero", put("attack", "bound", "0" + document["attack"]["bound"])),
        ("a bound below what was signed", lambda d: [b.update(amount="1") for b in d["bounds"]]),
        ("no bound", lambda d: d["bounds"].clear()),
        ("a check that failed", lambda d: d["checks"][0].update(ok=False)),
        ("a check that says yes in words", lambda d: d["checks"][0].update(ok="yes")),
        ("no checks", lambda d: d["checks"].clear()),
        ("another public key", lambda d: d["keys"][0].update(public_key=d["keys"][1]["public_key"])),
        ("another address", lambda d: [k.update(address=flip(k["address"]))
                                       for k in d["keys"] if k["address"]]),
        ("no requests", lambda d: d["requests"].clear()),
    ]


def self_test(document):
    results = [("the document as it is", "; ".join(f"{n}: {w}" for n, w in failures(document)) or None)]
    for name, breaks in mutations(document):
        broken = copy.deepcopy(document)
        breaks(broken)
        results.append((name, None if failures(broken) else "was not noticed"))
    return results


def main(arguments):
    testing = arguments[:1] == ["--self-test"]
    files = arguments[1:] if testing else arguments
    if len(files) != 1 or files[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(files[0], encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=no_duplicates)
        results = self_test(document) if testing else run(document)
    except (OSError, ValueError, Wrong) as error:
        results = [("reading the document", str(error))]
    failed = [(name, wrong) for name, wrong in results if wrong is not None]
    for name, wrong in failed:
        print(f"FAILED {name}: {wrong}")
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
