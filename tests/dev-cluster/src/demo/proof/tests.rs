use casemate_audit::note::{NoteSignature, UnixSeconds};
use casemate_audit::{
    Checkpoint, CosignerSet, InclusionReceipt, Origin, Record, RecordFields, SignedNote, Tree,
};
use casemate_ledger::verdict::Allowed;
use casemate_proto::{
    BootId, ChainId, DerivationPath, GrantId, Hash32, Incarnation, KeyName, PrincipalId, UnixMillis,
};
use casemate_tx::{EvmAddress, EvmSignature, evm_address_from_sec1};
use ed25519_dalek::Signer as _;

use super::*;
use crate::demo::cluster::{Key, Receipt};
use crate::demo::payloads::Transaction;

const GENESIS: GenesisId = GenesisId::new([1; 32]);
const ORIGIN: Origin = Origin { genesis: GENESIS, incarnation: Incarnation(0) };

fn wallet(seed: u8) -> k256::ecdsa::SigningKey {
    k256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn known(seed: u8) -> KnownKey {
    let public_key = wallet(seed).verifying_key().to_encoded_point(true).as_bytes().to_vec();
    let address = Some(evm_address_from_sec1(&public_key).unwrap());
    let name = KeyName::new("payout").unwrap();
    KnownKey { key: Key { name, scheme: Scheme::EcdsaSecp256k1, public_key, epoch: 0 }, address }
}

/// 65 bytes with v 0 or 1, as the log has them.
fn sign(seed: u8, digest: &[u8; 32]) -> [u8; 65] {
    let (signature, id) = wallet(seed).sign_prehash_recoverable(digest).unwrap();
    let mut out = [0; 65];
    out[..64].copy_from_slice(&signature.to_bytes());
    out[64] = id.to_byte();
    out
}

fn payload() -> Payload {
    Transaction::usdt_transfer(3, EvmAddress([0x11; 20]), Amount::from(7)).payload()
}

fn boot(number: u8) -> (BootId, ed25519_dalek::SigningKey) {
    (BootId::new([number; 32]), ed25519_dalek::SigningKey::from_bytes(&[number; 32]))
}

/// Asks for a checkpoint that two of three boots cosigned.
fn policy() -> CheckpointPolicy {
    let keys = [1, 2, 3].map(|number| {
        let (id, key) = boot(number);
        ORIGIN.boot_key(&id, key.verifying_key().as_bytes()).unwrap()
    });
    let cosigners = CosignerSet::new(keys.to_vec(), 2).unwrap();
    CheckpointPolicy { origin: ORIGIN.to_string(), log_key: None, cosigners }
}

fn whose() -> (CredentialId, RequestId) {
    (CredentialId(Hash32::new([7; 32])), RequestId::new([8; 16]))
}

fn allowed(digest: [u8; 32]) -> Verdict {
    Verdict::Allowed(Allowed {
        principal: PrincipalId::new("workflow:settlement").unwrap(),
        grant: GrantId::new("settlement-usdt").unwrap(),
        key: KeyName::new("payout").unwrap(),
        path: DerivationPath::root(),
        epoch: 0,
        digest,
        release_by: UnixMillis(2),
    })
}

/// A log of two records, of a verdict and of a signature, cosigned by these boots.
fn receipt(verdict: &Verdict, signature: &[u8], cosigned_by: &[u8]) -> Receipt {
    let (credential, request_id) = whose();
    let signed = EntryBody::Signed { credential, request_id, signature: signature.to_vec() };
    let mut tree = Tree::new();
    let mut leaves = Vec::new();
    for (kind, body, verdict) in
        [("request", EntryBody::Tick, verdict), ("signed", signed, &Verdict::accepted())]
    {
        let record = Record::new(RecordFields {
            index: tree.size(),
            time: UnixMillis(1),
            kind: kind.to_owned(),
            entry: Entry { at: UnixMillis(1), body }.encode(),
            verdict: cbor::encode(verdict),
            policy: None,
            counters: Vec::new(),
            previous_root: tree.root(),
        })
        .unwrap();
        tree.append(record.leaf_hash());
        leaves.push(record.leaf_bytes().to_vec());
    }
    let checkpoint = Checkpoint::new(&ORIGIN, tree.size(), tree.root());
    let time = UnixSeconds(1);
    let lines: Vec<_> = cosigned_by
        .iter()
        .map(|number| {
            let (id, key) = boot(*number);
            let verifier = ORIGIN.boot_key(&id, key.verifying_key().as_bytes()).unwrap();
            let signature = key.sign(&checkpoint.cosignature_message(time)).to_bytes();
            NoteSignature::cosignature(&verifier, time, &signature)
        })
        .collect();
    let note = SignedNote::assemble(&checkpoint.body(), &lines).unwrap().to_string();
    let shown = |index: u64| InclusionReceipt {
        leaf: leaves[usize::try_from(index).unwrap()].clone(),
        proof: tree.inclusion_proof(index, tree.size()).unwrap(),
        checkpoint: note.clone(),
    };
    Receipt { allowed: shown(0), signed: shown(1) }
}

/// A good answer to [`payload`] by the wallet of seed 5.
fn answer() -> (Decoded, Signed) {
    let decoded = decode(&GENESIS, &payload()).unwrap();
    let logged = sign(5, &decoded.digest);
    let wallets = EvmSignature::new(logged.first_chunk().unwrap(), logged[64] == 1).unwrap();
    let Payload::Tx { unsigned, .. } = payload() else { unreachable!() };
    let signed = Signed {
        signature: wallets.r_s_v().to_vec(),
        raw_transaction: Some(decode_evm(&unsigned).unwrap().raw_signed(&wallets)),
        receipt: receipt(&allowed(decoded.digest), &logged, &[1, 2]),
    };
    (decoded, signed)
}

#[test]
fn good_answer_is_found_good() {
    let (decoded, signed) = answer();
    check_signature(&known(5), &decoded, &signed).unwrap();
    check_receipt(&[policy()], whose(), &decoded, &signed).unwrap();
}

#[test]
fn signature_by_another_key_or_over_another_digest_is_refused() {
    let (decoded, signed) = answer();
    assert!(check_signature(&known(6), &decoded, &signed).is_err());
    let other = Decoded { digest: [9; 32], ..decoded.clone() };
    assert!(check_signature(&known(5), &other, &signed).is_err());
    for length in [0, 64, 66] {
        let mut cut = signed.clone();
        cut.signature.resize(length, 27);
        assert!(check_signature(&known(5), &decoded, &cut).is_err(), "{length}");
    }
}

#[test]
fn another_raw_transaction_is_refused() {
    let (decoded, mut signed) = answer();
    let other = Transaction::usdt_transfer(4, EvmAddress([0x11; 20]), Amount::from(7));
    let digest = decode(&GENESIS, &other.payload()).unwrap().digest;
    let signature = sign(5, &digest);
    let signature =
        EvmSignature::new(signature.first_chunk().unwrap(), signature[64] == 1).unwrap();
    signed.raw_transaction = Some(decode_evm(&other.unsigned()).unwrap().raw_signed(&signature));
    assert!(check_signature(&known(5), &decoded, &signed).is_err());
}

#[test]
fn ed25519_signature_is_held_to_its_key() {
    let digest = [4; 32];
    let decoded = Decoded { digest, amount: Amount::ZERO, asset: None, fee: None };
    let (_, key) = boot(5);
    let (_, good) = answer();
    let signed =
        Signed { signature: key.sign(&digest).to_bytes().to_vec(), raw_transaction: None, ..good };
    for (number, fits) in [(5, true), (6, false)] {
        let public_key = boot(number).1.verifying_key().to_bytes().to_vec();
        let name = KeyName::new("notary").unwrap();
        let key = Key { name, scheme: Scheme::Ed25519, public_key, epoch: 0 };
        let checked = check_signature(&KnownKey { key, address: None }, &decoded, &signed);
        assert_eq!(checked.is_ok(), fits, "{number}");
    }
}

#[test]
fn i10_receipt_of_anything_else_is_refused() {
    let (decoded, signed) = answer();
    let good = sign(5, &decoded.digest);
    let (credential, request_id) = whose();
    let others =
        [(CredentialId(Hash32::new([0; 32])), request_id), (credential, RequestId::new([0; 16]))];
    for other in others {
        assert!(check_receipt(&[policy()], other, &decoded, &signed).is_err());
    }
    for (what, receipt) in [
        (
            "another signature",
            receipt(&allowed(decoded.digest), &sign(6, &decoded.digest), &[1, 2]),
        ),
        ("another digest", receipt(&allowed([9; 32]), &good, &[1, 2])),
        ("no permission", receipt(&Verdict::accepted(), &good, &[1, 2])),
        ("one cosigner of two", receipt(&allowed(decoded.digest), &good, &[1])),
        ("a cosigner who is none", receipt(&allowed(decoded.digest), &good, &[1, 4])),
    ] {
        let signed = Signed { receipt, ..signed.clone() };
        assert!(check_receipt(&[policy()], whose(), &decoded, &signed).is_err(), "{what}");
    }
    let mut swapped = signed.clone();
    swapped.receipt.signed = signed.receipt.allowed.clone();
    assert!(check_receipt(&[policy()], whose(), &decoded, &swapped).is_err());
}

#[test]
fn tally_adds_amounts_and_fees_by_key_and_asset() {
    let decoded = decode(&GENESIS, &payload()).unwrap();
    let chain = ChainId::eip155(1);
    let usdt = decoded.asset.clone().unwrap();
    let native = AssetKey { chain, token: None };
    let fee = decoded.fee.clone().unwrap();
    assert_eq!(fee, (native.clone(), Amount::from(65_000 * 20_000_000_000)));
    let mut tally = Tally::default();
    for _ in 0..3 {
        tally.add("payout", Some(&decoded), true);
    }
    tally.add("treasury", Some(&decoded), false);
    assert_eq!(tally.of("payout", &usdt), Amount::from(21));
    assert_eq!(Some(tally.of("payout", &native)), fee.1.checked_mul(3));
    assert_eq!(tally.of("treasury", &usdt), Amount::from(7));
    assert_eq!(tally.unproven(), 1);
}
