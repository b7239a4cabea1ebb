#!/usr/bin/env python3
"""Drives the HTTP API of a running cluster, with no code of this repository.

    http_check.py CLUSTER_JSON      exit status 0 only if everything holds

It attests the nodes by itself, stamps by itself, asks for what the policy of `casemate-dev up --keys`
allows and for what it does not, and checks every signature, receipt, denial and checkpoint by itself.
`docs/FORMATS.md` describes all of it. Needs the packages of `requirements.txt`. It spends some of that
policy's limits, of which there is enough for a few runs.
"""

import json
import os
import sys
import time

import rlp
from eth_utils import keccak

from cluster import Cluster, exchange
from formats import Checkpoint, Wrong, cbor, need, unhex
from records import CODES, Log, no_duplicates

USDC = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
USDT = "dac17f958d2ee523a2206206994597c13d831ec7"
X402, MERCHANT, TREASURY, STRANGER = "a4" * 20, "b0" * 20, "c1" * 20, "d9" * 20
# Most bytes of a request's body, and what is more than any body may be.
TOO_LARGE = 1 << 20


def new_id():
    return "0x" + os.urandom(16).hex()


def body_of(**fields):
    return json.dumps({"request_id": new_id(), **fields}).encode()


def message(text=None):
    text = text or os.urandom(20)
    return body_of(key="notary", kind="message", input="0x" + text.hex())


def transaction(key, to, value=0, data=b"", gas=21_000):
    nonce = int.from_bytes(os.urandom(3), "big")
    items = [1, nonce, 10**8, 10**10, gas, bytes.fromhex(to), value, data, []]
    return body_of(key=key, kind="tx", chain="eip155:1", input="0x02" + rlp.encode(items).hex())


def usdt(to, cents, key="payout"):
    data = keccak(b"transfer(address,uint256)")[:4] + bytes(12) + bytes.fromhex(to)
    data += (cents * 10_000).to_bytes(32, "big")
    return transaction(key, USDT, data=data, gas=65_000)


def authorization(payer, cents, to=X402, domain="USD Coin", **more):
    now = int(time.time())
    of = lambda names: [{"name": n, "type": t} for n, t in names]
    return body_of(key="agent-7", kind="typed_data", input={
        "types": {
            "EIP712Domain": of([("name", "string"), ("version", "string"), ("chainId", "uint256"),
                                ("verifyingContract", "address")]),
            "TransferWithAuthorization": of([
                ("from", "address"), ("to", "address"), ("value", "uint256"),
                ("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32")])},
        "primaryType": "TransferWithAuthorization",
        "domain": {"name": domain, "version": "2", "chainId": 8453, "verifyingContract": USDC},
        "message": {"from": payer, "to": "0x" + to, "value": str(cents * 10_000),
                    "validAfter": str(now - 600), "validBefore": str(now + 300),
                    "nonce": "0x" + os.urandom(32).hex(), **more}})


class Checks:
    """Each method is one check, and raises `Wrong`."""

    def __init__(self, file):
        self.cluster = Cluster(file)
        self.nodes = sorted(self.cluster.urls)
        self.log = None
        self.addresses = {}
        self.signed = []

    # what is believed, and from whom

    def attestation(self):
        for node in self.nodes:
            self.cluster.attest(node)

    def views(self):
        views = [self.cluster.view(node) for node in self.nodes]
        cluster, log = self.cluster, None
        for view, shown in views:
            need(view[8] is True and shown["confirmed"], "the genesis is not confirmed")
            current = {boot[0]: (boot[1], boot[2]) for boot in view[13]}
            need(set(current) == set(self.nodes), "not one current boot for each node")
            for node, (boot, key) in current.items():
                need(cluster.boots.get(boot) == (node, key), f"`{node}` is another boot than attested")
            need([boot["boot"] for boot in shown["boots"]] == ["0x" + boot[1].hex() for boot in view[13]],
                 "the readable part shows other boots than the signed part")
            log = log or Log(cluster.genesis, view[1], cluster.threshold)
            need(view[1] == log.incarnation, "two incarnations")
            log.learn_cosigners((node, cluster.cosigner(*boot)) for node, boot in current.items())
        self.log = log

    def keys(self):
        for node in self.nodes:
            _, keys, _, body = self.cluster.reply(node, "keys", 2)
            shown = {key["name"]: key for key in body["keys"]}
            for key in keys:
                need(2 in key, f"`{key[0]}` is not live")
                live, readable = key[2], shown[key[0]]
                need(unhex(readable["live"]["public_key"]) == live[0], "the readable part differs")
                address = readable["live"]["address"]
                self.log.learn_key(key[0], readable["scheme"], "0x" + live[0].hex(), address)
                self.addresses[key[0]] = address
                if 4 in live:
                    receipt = live[4]
                    need(self.log.checkpoint(receipt[2]).size > live[3], "the receipt is too old")
                    need(live[0] in receipt[0], "the key is not in the record that made it live")
        need({"agent-7", "payout", "treasury", "notary"} <= set(self.addresses),
             f"the keys are {sorted(self.addresses)}: start it with `--keys`")

    # what is signed

    def settle(self, answer, who, body):
        """A signed answer, checked as an auditor would; gives the signature."""
        need(answer.status == 200, f"status {answer.status}: {answer.body[:300]}")
        need(answer.headers["content-type"].startswith("application/json"), "not JSON by its type")
        said, asked = answer.json(), json.loads(body)
        need(said["outcome"] == "signed", f"outcome `{said['outcome']}`")
        value = {"id": asked["request_id"], "key": asked["key"], "path": asked.get("path", "m"),
                 "principal": who, "kind": asked["kind"], "input": asked["input"], **said}
        digest, _, parsed = self.log.digest_of(value)
        need(unhex(said["digest"], 32) == digest, "the digest is of something else")
        self.log.signature(value, digest, parsed)
        self.log.signed_receipt(value, digest)
        self.signed.append(said["signature"])
        return said["signature"]

    def sign(self, who, body, node=0):
        answer = self.cluster.ask(self.nodes[node % len(self.nodes)], who, body)
        return self.settle(answer, who, body)

    def message_and_again(self):
        body = message()
        first = self.sign("workflow:reports", body)
        for node in range(len(self.nodes)):
            need(self.sign("workflow:reports", body, node) == first, "another signature for one id")
        credential = self.cluster.credentials["workflow:reports"].id.hex()
        path = f"/v1/requests/{json.loads(body)['request_id']}?credential=0x{credential}"
        answer = self.cluster.get(self.nodes[1], path)
        need(answer.status == 200 and answer.json()["signature"] == first, "asked about, it differs")

    def transaction(self):
        self.sign("workflow:settlement", usdt(MERCHANT, 100), 1)

    def typed_data(self):
        self.sign("agent:research", authorization(self.addresses["agent-7"], 1), 2)

    def approvals(self):
        """A transfer above a tier waits, and two others' approvals sign it."""
        who, body = "operator:alice", transaction("treasury", TREASURY, value=12 * 10**17)
        answer = self.cluster.ask(self.nodes[0], who, body)
        need(answer.status == 202 and answer.json()["outcome"] == "pending", f"status {answer.status}")
        approval = json.dumps({"credential": "0x" + self.cluster.credentials[who].id.hex(),
                               "request_id": json.loads(body)["request_id"],
                               "document": answer.json()["document"]}).encode()
        own = self.cluster.approve(self.nodes[1], who, approval)
        self.is_denied(own, 403, "approver_not_allowed")
        for number, approver in enumerate(["operator:bob", "operator:carol"]):
            answer = self.cluster.approve(self.nodes[number], approver, approval)
            need(answer.status in (200, 202), f"status {answer.status}: {answer.body[:200]}")
        # the third node may have to catch up with what the others were told
        answer = self.cluster.ask(self.nodes[2], who, body, (202, 503, 504))
        self.settle(answer, who, body)

    # what is denied, and how

    def is_denied(self, answer, status, code, signed=True):
        need(answer.status == status, f"status {answer.status} for {status}: {answer.body[:300]}")
        need(answer.headers["content-type"].startswith("application/problem+json"),
             f"a problem of type `{answer.headers['content-type']}`")
        problem = answer.json()
        need(problem["code"] == code, f"code `{problem['code']}` for `{code}`")
        need(problem["status"] == status and problem["type"] == f"urn:casemate:problem:{code}"
             and problem["title"], "not as RFC 9457 has it")
        if signed:
            denial = self.cluster.denial(answer)[2]
            need(CODES[denial[0]] == code, "the signed denial has another code")
            need(denial.get(1) == problem.get("grant"), "the signed denial names another grant")
        return problem

    def deny(self, who, body, status, code, node=0):
        answer = self.cluster.ask(self.nodes[node], who, body)
        return self.is_denied(answer, status, code)

    def over_the_limit(self):
        problem = self.deny("agent:research", authorization(self.addresses["agent-7"], 501), 403,
                            "over_per_tx_cap")
        need(problem["grant"] == "x402-research" and problem["limit"] == "5000000",
             f"grant `{problem['grant']}`, limit `{problem['limit']}`")

    def not_listed(self):
        self.deny("workflow:settlement", usdt(STRANGER, 100), 403, "payee_not_listed", 1)

    def not_allowed(self):
        payer = self.addresses["agent-7"]
        self.deny("agent:research", authorization(payer, 1, domain="USDC"), 403, "domain_mismatch")
        self.deny("agent:research", authorization(payer, 1, memo="x"), 400, "malformed")
        self.deny("agent:research", body_of(key="agent-7", kind="hash", input="0x" + "11" * 32), 403,
                  "raw_hash")
        creation = transaction("treasury", "", data=b"\x60\x00", gas=100_000)
        self.deny("operator:alice", creation, 403, "action_not_allowed")
        self.deny("agent:research", usdt(MERCHANT, 1), 403, "no_grant")
        self.deny("agent:research", message().replace(b'"notary"', b'"nobody"'), 403, "unknown_key")

    def another_body_under_an_id(self):
        who, first, second = "workflow:settlement", usdt(MERCHANT, 1), json.loads(usdt(MERCHANT, 2))
        self.sign(who, first)
        second["request_id"] = json.loads(first)["request_id"]
        self.deny(who, json.dumps(second).encode(), 409, "request_id_reused", 1)

    def stamps(self):
        """Stamps that are altered, of another time, place or purpose, or by nobody who is registered."""
        cluster, node = self.cluster, self.nodes[0]
        body, now = usdt(MERCHANT, 1), int(time.time() * 1000)

        def stamp(who="workflow:settlement", **other):
            return cluster.stamp(who, "requests.create", body, **other)

        good = stamp()
        last = {"A": "B"}.get(good[-10], "A")
        before = self.size()
        for what, value, code in [
            ("a changed signature", good[:-10] + last + good[-9:], "bad_stamp"),
            ("another genesis", stamp(genesis=bytes(32)), "bad_stamp"),
            ("another incarnation", stamp(incarnation=1), "bad_stamp"),
            ("another method", stamp(method="approvals.create"), "bad_stamp"),
            ("another body", stamp(body=body + b" "), "bad_stamp"),
            ("a time long gone", stamp(issued=now - 9_000_000, expires=now - 8_900_000), None),
            ("a time to come", stamp(issued=now + 100_000, expires=now + 150_000), None),
            ("a life too long", stamp(issued=now, expires=now + 400_000), None),
            ("a credential that is not registered", stamp("governor:1"), "unknown_credential"),
        ]:
            answer = cluster.post(node, "/v1/requests", body, "casemate-stamp", value)
            need(answer.status in (400, 403), f"{what}: status {answer.status}: {answer.body[:200]}")
            problem = answer.json()
            need(code in (None, problem["code"]), f"{what}: code `{problem['code']}`")
            need("signature" not in problem, f"{what}: signed")
        need(self.size() - before <= 2, "unauthenticated input became entries")
        for what, value in [("no stamp", None), ("an empty one", ""), ("another version", "v2" + good[2:]),
                            ("a part less", good.rsplit(".", 1)[0]), ("a part more", good + ".AA"),
                            ("hex in upper case", good.upper()), ("a long one", "v1." + "a" * 5_000),
                            ("text that is none", "v1.\xe4\xf6")]:
            headers = {"content-type": "application/json"}
            if value is not None:
                headers["casemate-stamp"] = value.encode("latin-1")
            answer = exchange(cluster.urls[node], "POST", "/v1/requests", body, headers)
            need(answer.status in (400, 403, 431), f"{what}: status {answer.status}")
        # the same stamp for good: the request was never spoilt
        self.settle(cluster.post(node, "/v1/requests", body, "casemate-stamp", good),
                    "workflow:settlement", body)

    def bodies(self):
        """Bodies that are none, each under a stamp that is good."""
        good = json.loads(message())
        text = lambda **more: json.dumps({**good, **more}).encode()
        nested = b'{"a":' * 500 + b"1" + b"}" * 500
        for what, body in [
            ("nothing", b""), ("no JSON", b"hello"), ("half of it", text()[:-5]), ("a list", b"[]"),
            ("something behind", text() + b"{}"), ("an unknown field", text(more=1)),
            ("a repeated field", text()[:-1] + b',"key":"notary"}'), ("no UTF-8", b'{"key":"\xff"}'),
            ("deep nesting", nested), ("a number for a name", text(key=7)),
            ("half a byte", text(input="0xabc")),
            ("an id too short", text(request_id="0x00")), ("another kind", text(kind="anything")),
            ("a path that is none", text(path="m/0/x")), ("a hardened path", text(path="m/0'")),
            ("a transaction without a chain", text(kind="tx", input="0x02c0")),
        ]:
            answer = self.cluster.ask(self.nodes[0], "workflow:reports", body)
            need(400 <= answer.status < 404, f"{what}: status {answer.status}: {answer.body[:200]}")
            need(answer.json()["code"] in ("malformed", "bad_body", "bad_path", "wrong_scheme"),
                 f"{what}: code `{answer.json()['code']}`")

    def sizes_and_types(self):
        url, body = self.cluster.urls[self.nodes[0]], message()
        stamp = self.cluster.stamp("workflow:reports", "requests.create", body)
        headers = {"content-type": "application/json", "casemate-stamp": stamp}
        large = b'{"a":"' + b"x" * TOO_LARGE + b'"}'
        for what, call, statuses in [
            ("a large body", lambda: exchange(url, "POST", "/v1/requests", large, headers), {413}),
            ("a large body in chunks",
             lambda: exchange(url, "POST", "/v1/requests", iter([large]),
                              {**headers, "transfer-encoding": "chunked"}), {413}),
            ("no type", lambda: exchange(url, "POST", "/v1/requests", body,
                                         {"casemate-stamp": stamp}), {415}),
            ("another type", lambda: exchange(url, "POST", "/v1/requests", body,
                                              {**headers, "content-type": "text/plain"}), {415}),
            ("another method", lambda: exchange(url, "DELETE", "/v1/requests"), {405}),
            ("nothing there", lambda: exchange(url, "GET", "/v2/requests"), {404}),
            ("no nonce", lambda: exchange(url, "GET", "/v1/keys"), {400}),
            ("a nonce that is none", lambda: exchange(url, "GET", "/v1/keys?nonce=0x12"), {400}),
            ("an id that is none", lambda: exchange(url, "GET", "/v1/requests/0x12?credential=0x1"), {400}),
            ("a way out of the store", lambda: exchange(url, "GET", "/v1/store/../../root.der"), {400, 404}),
            ("another way out", lambda: exchange(url, "GET", "/v1/store/%2e%2e/%2e%2e/root.der"), {400, 404}),
            ("a large header", lambda: exchange(url, "GET", "/healthz", headers={"x": "y" * 200_000}),
             {400, 431}),
        ]:
            try:
                answer = call()
            except (BrokenPipeError, ConnectionResetError):
                # closed before all of it was sent, which is as good as 413
                need(statuses & {413, 431}, f"{what}: the connection was closed")
                continue
            need(answer.status in statuses, f"{what}: status {answer.status}: {answer.body[:200]}")
            if answer.status != 431:
                need(answer.headers.get("content-type", "").startswith("application/problem+json"),
                     f"{what}: not a problem")
        unknown = f"/v1/requests/{new_id()}?credential=0x{'00' * 32}"
        self.is_denied(self.cluster.get(self.nodes[0], unknown), 404, "unknown_request", signed=False)

    # what anybody may read

    def size(self):
        return self.cluster.view(self.nodes[0])[0][5]

    def checkpoints(self):
        """The newest checkpoint comes to cover everything, at every node, with one root."""
        goal, until = self.size(), time.time() + 20
        for node in self.nodes:
            while True:
                answer = self.cluster.get(node, "/v1/checkpoint")
                need(answer.status == 200, f"status {answer.status}")
                note = self.log.checkpoint(answer.body.decode())
                if note.size >= goal:
                    break
                need(time.time() < until, f"`{node}` shows {note.size} of {goal} records")
                time.sleep(0.3)
        answer = self.cluster.get(self.nodes[0], "/v1/store/checkpoint")
        need(Checkpoint(answer.body.decode()).origin == self.log.origin(), "another log's store")
        answer = self.cluster.get(self.nodes[0], "/v1/store?folder=checkpoints")
        need(answer.status == 200 and answer.json()["names"], "no checkpoints in the store")

    def health(self):
        for node in self.nodes:
            need(self.cluster.get(node, "/healthz").status == 200, f"`{node}` is not healthy")
            ready = self.cluster.get(node, "/readyz")
            need(ready.status == 200 and ready.json()["ready"] is True, f"`{node}` is not ready")
            metrics = self.cluster.get(node, "/metrics")
            need(metrics.status == 200 and b"# TYPE" in metrics.body, "no metrics")
            for value in self.addresses:
                need(value.encode() not in metrics.body, f"the metrics name key `{value}`")
        openapi = self.cluster.get(self.nodes[0], "/openapi.json").json()
        need(openapi["openapi"].startswith("3.") and "/v1/requests" in openapi["paths"], "no OpenAPI")

    def different_signatures(self):
        need(len(set(self.signed)) >= 5, f"{len(set(self.signed))} different signatures")


def run(file):
    """(name of each check, what is wrong or None)."""
    checks, results = Checks(file), []
    for name in ["attestation", "views", "keys", "message_and_again", "transaction", "typed_data",
                 "approvals", "over_the_limit", "not_listed", "not_allowed",
                 "another_body_under_an_id", "stamps", "bodies", "sizes_and_types", "checkpoints",
                 "health", "different_signatures"]:
        try:
            getattr(checks, name)()
            results.append((name, None))
        except Wrong as wrong:
            results.append((name, str(wrong)))
        except Exception as error:  # whatever a library makes of hostile input is a failure
            results.append((name, f"{type(error).__name__}: {error}"))
    return results


def main(arguments):
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            results = run(json.load(file, object_pairs_hook=no_duplicates))
    except (OSError, ValueError, Wrong) as error:
        results = [("reading the cluster file", str(error))]
    for name, wrong in results:
        print(f"{'ok    ' if wrong is None else 'FAILED'} {name.replace('_', ' ')}"
              + (f": {wrong}" if wrong else ""))
    failed = sum(wrong is not None for _, wrong in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
