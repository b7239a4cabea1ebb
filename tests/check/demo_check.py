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
import json
import re
import sys

from formats import Checkpoint, VerifierKey, Wrong, need, unhex
from records import CODES, N, Log, items, no_duplicates, text, whole

# What the demo must have been denied, and what it must have had signed.
DENIED = {"over_per_tx_cap", "limit_exceeded", "payee_not_listed", "outside_hours",
          "domain_mismatch", "malformed", "raw_hash", "action_not_allowed"}
SIGNED = {("tx", "ecdsa-secp256k1"), ("typed_data", "ecdsa-secp256k1"), ("message", "ed25519")}

FIELDS = {
    "": {"schema", "cluster", "keys", "requests", "bounds", "attack", "checkpoint", "cosigners",
         "checks", "processes"},
    "cluster": {"genesis_id", "incarnation", "threshold", "nodes"},
    "key": {"name", "scheme", "public_key", "address"},
    "request": {"id", "step", "key", "path", "principal", "kind", "input", "outcome", "denial",
                "digest", "signature", "raw_transaction", "receipt"},
    "denial": {"code", "grant", "limit", "remaining", "resets_at"},
    "bound": {"key", "asset", "window", "amount", "decimals"},
    "attack": {"asked", "signed_total", "bound"},
    "check": {"name", "ok"},
    "processes": {"boots", "network"},
    "boot": {"node", "cosigner"},
    "network": {"seed", "flipped", "dropped", "repeated", "replayed", "swapped", "delayed", "cut",
                "expired"},
}
UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def fields(value, what):
    need(isinstance(value, dict), f"`{what}` is not an object")
    wrong = set(value) ^ FIELDS[what]
    need(not wrong, f"`{what}`: unknown or missing: {', '.join(sorted(wrong))}")
    return value


def amount(value):
    return int(text(value, r"0|[1-9][0-9]{0,77}", "decimal amount"))


def time_of(value):
    text(value, r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "time in UTC")
    return datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")


class Demo(Log):
    """The document under check; each method is one check, and raises `Wrong`."""

    def __init__(self, document):
        self.document = fields(document, "")
        need(document["schema"] == "casemate.demo/1", f"schema `{document['schema']}`")
        cluster = fields(document["cluster"], "cluster")
        super().__init__(unhex(cluster["genesis_id"], 32),
                         whole(cluster["incarnation"], "incarnation"),
                         whole(cluster["threshold"], "threshold", 2))
        self.nodes = items(cluster["nodes"], "nodes")
        self.requests = items(document["requests"], "requests")
        self.moved = []  # (key, asset, amount, ledger time, step) of every signature

    def cluster(self):
        for name in self.nodes:
            text(name, r"[a-z0-9-]{1,32}", "node name")
        need(len(set(self.nodes)) == len(self.nodes) > self.threshold, "too few different nodes")
        cosigners = [VerifierKey(key) for key in items(self.document["cosigners"], "cosigners")]
        need(len({key.name for key in cosigners}) == len(cosigners), "two cosigners with one name")
        if self.document["processes"] is None:
            need(len(cosigners) == len(self.nodes), "not one cosigner for each node")
            self.learn_cosigners((key.name, key) for key in cosigners)
            return
        boots = items(fields(self.document["processes"], "processes")["boots"], "boots")
        boots = [fields(boot, "boot") for boot in boots]
        need([boot["cosigner"] for boot in boots] == self.document["cosigners"],
             "the boots are not those that cosign")
        need({boot["node"] for boot in boots} == set(self.nodes), "the boots are of other nodes")
        self.learn_cosigners((boot["node"], key) for boot, key in zip(boots, cosigners))

    def processes(self):
        """Where nodes were processes: one was restarted and signed afterwards with the share that
        it was given back, and the network did every kind of harm."""
        if self.document["processes"] is None:
            return
        first, later = set(), set()
        for boot in self.document["processes"]["boots"]:
            (later if boot["node"] in first else first).add(boot["node"])
        need(later, "no node was restarted")
        first_of = {}
        for name in [key.name for key in self.cosigner_keys]:
            first_of.setdefault(self.nodes_of[name], name)
        # a receipt's checkpoint has the cosignatures of the boots that signed
        signed = set()
        for request in self.requests:
            if request["outcome"] == "signed":
                note = Checkpoint(request["receipt"]["checkpoint"])
                if note.cosigners(self.cosigner_keys) - set(first_of.values()):
                    signed.add(self.keys[request["key"]][0])
        need(signed == {"ecdsa-secp256k1", "ed25519"}, f"restarted nodes signed {sorted(signed)}")
        network = fields(self.document["processes"]["network"], "network")
        amount(network["seed"])
        count = {what: whole(network[what], "count") for what in network if what != "seed"}
        # budget may be lost where the network is hostile, and nowhere else
        expired = [request["step"] for request in self.requests if request["outcome"] == "expired"]
        need(expired == [3] * count["expired"] and count["expired"] < 4, f"{len(expired)} expired")
        need(count["flipped"] > 0 and count["dropped"] > 0 and count["swapped"] > 0
             and count["repeated"] + count["replayed"] > 0, f"the network did {count}")

    def key(self, value):
        fields(value, "key")
        need(value["name"] not in self.keys, f"two keys `{value['name']}`")
        self.learn_key(value["name"], value["scheme"], value["public_key"], value["address"])

    def newest_checkpoint(self):
        newest = self.checkpoint(self.document["checkpoint"])
        need(newest.size >= max(self.roots), "a receipt is of a newer checkpoint than the newest")

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
        outcome = text(value["outcome"], "signed|denied|pending|expired|error", "outcome")
        for field, outcomes in [("denial", "denied"), ("signature", "signed")]:
            need((value[field] is not None) == (outcome == outcomes), f"`{field}` of one {outcome}")
        need(value["raw_transaction"] is None or value["kind"] == "tx", "a transaction of nothing")
        need(outcome != "error", "the cluster could not serve a request")
        need(outcome != "expired" or self.document["processes"], "a request was not signed in time")
        if outcome == "signed":
            need(value["digest"] is not None, "signed with no digest")
            self.signature(value, digest, transaction)
            time = self.signed_receipt(value, digest)
            self.moved += [(value["key"], *move, time, value["step"]) for move in moves]
        elif outcome == "denied":
            self.denial(value["denial"])
            if value["receipt"] is not None:
                self.denied_receipt(value)

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
    check("processes", demo.processes)
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

    def one_boot_each(d):
        first = {}
        for boot in d["processes"]["boots"]:
            first.setdefault(boot["node"], boot)
        d["processes"]["boots"] = list(first.values())
        d["cosigners"] = [boot["cosigner"] for boot in first.values()]

    of_processes = [
        ("no restart", one_boot_each),
        ("another node's boot", lambda d: d["processes"]["boots"][-1].update(node="elsewhere")),
        ("a boot that does not cosign", lambda d: d["processes"]["boots"].pop()),
        ("a network that flips nothing", lambda d: d["processes"]["network"].update(flipped=0)),
        ("a network that cost a payment more",
         lambda d: d["processes"]["network"].update(expired=d["processes"]["network"]["expired"] + 1)),
        ("a network that does nothing at all", lambda d: d["processes"]["network"].clear()),
        ("a restarted node that signs nothing", lambda d: d.update(requests=[
            r for r in d["requests"] if r["step"] != 3])),
    ] if document["processes"] else []

    return of_processes + [
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
