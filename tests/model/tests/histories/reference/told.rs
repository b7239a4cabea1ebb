//! What is said to anybody outside: checkpoints, answers and their proofs.

use casemate_proto::UnixMillis;
use casemate_proto::ids::Hash32;
use casemate_signer::{Answer, SignedDenial};

use super::{Ask, Checked, Reference, violated};

impl Reference {
    /// A checkpoint was published.
    pub fn checkpoint(&self, size: u64, root: &str) -> Checked {
        match size.checked_sub(1).and_then(|at| self.log.get(at as usize)) {
            Some(leaf) if hex::encode(leaf.root.as_bytes()) == root => Ok(()),
            Some(_) => violated!("two checkpoints of size {size} with different roots"),
            None => violated!("a checkpoint of size {size}, and {} entries exist", self.size()),
        }
    }

    /// A client was answered: what is said for good stays so.
    pub fn said(&mut self, ask: Ask, answer: &Answer) -> Checked {
        let known = self.meant.get(&ask).cloned().unwrap_or_default();
        let about_it = |denial: &SignedDenial| {
            use casemate_proto::DenialCode::{Frozen, LimitExceeded, NoGrant};
            // other codes are about how it was asked, and asking again may go well
            matches!(denial.denial.code, Frozen | LimitExceeded | NoGrant)
                && denial.index.is_some()
                && known.iter().any(|m| *denial.subject.as_bytes() == sha256(&[&m.body]))
        };
        // two bodies under one id: the other may be the one that stands
        let alone = known.len() == 1;
        let never = match answer {
            Answer::Expired(_) => true,
            Answer::Denied(denial) => alone && about_it(denial),
            Answer::Signed(signed) => {
                let known = self.given_out.entry(ask).or_insert_with(|| signed.signature.clone());
                if *known != signed.signature {
                    violated!("request {} was answered with two signatures", ask.1);
                }
                false
            }
            _ => false,
        };
        if matches!(answer, Answer::Expired(_)) {
            self.expired.insert(ask);
        }
        if never {
            self.never.insert(ask);
        }
        if self.never.contains(&ask) && self.made.get(&ask).is_some_and(|made| made.leaf.is_some())
        {
            violated!("request {} was given up, a client was told, and it is signed", ask.1);
        }
        Ok(())
    }

    /// A client was given a signature with its proofs: the leaf is this log's and the proof leads to
    /// its root.
    pub fn answered(
        &mut self,
        ask: Ask,
        signed: &casemate_signer::Signed,
        now: UnixMillis,
    ) -> Checked {
        self.signature(ask, &signed.signature, now, None)?;
        let made = &self.made[&ask];
        let Some(leaf) = made.leaf else {
            violated!("request {} was answered before its signature was in the log", ask.1);
        };
        if signed.digest != made.digest {
            violated!("request {} was answered with another digest", ask.1);
        }
        for receipt in [&signed.receipt.allowed, &signed.receipt.signed] {
            let mut lines = receipt.checkpoint.lines().skip(1);
            let size: u64 = lines.next().and_then(|l| l.parse().ok()).unwrap_or(0);
            let Some(known) = size.checked_sub(1).and_then(|at| self.log.get(at as usize)) else {
                violated!("request {} has a receipt of a log of {size} entries", ask.1);
            };
            let index = casemate_audit::Record::parse(&receipt.leaf).map_or(size, |r| r.index());
            let proves = index < size
                && tree_root(&receipt.leaf, index, size, &receipt.proof) == Some(known.root);
            if size <= leaf || !proves {
                violated!("request {} has a receipt that does not lead to the log's root", ask.1);
            }
        }
        Ok(())
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

/// The root that an RFC 6962 proof leads to.
fn tree_root(leaf: &[u8], index: u64, size: u64, proof: &[Hash32]) -> Option<Hash32> {
    fn up(hash: [u8; 32], index: u64, size: u64, proof: &[Hash32]) -> Option<[u8; 32]> {
        if size == 1 {
            return proof.is_empty().then_some(hash);
        }
        let (last, rest) = proof.split_last()?;
        let half = size.next_power_of_two() / 2;
        if index < half {
            let left = up(hash, index, half, rest)?;
            Some(sha256(&[&[1], &left, last.as_bytes()]))
        } else {
            let right = up(hash, index - half, size - half, rest)?;
            Some(sha256(&[&[1], last.as_bytes(), &right]))
        }
    }
    up(sha256(&[&[0], leaf]), index, size, proof).map(Hash32::new)
}
