//! What a parent keeps for a recovery, and hands over in one.
//!
//! ```text
//! sealed/<size>-<boot>-<number>.cbor   blobs that the enclave sealed, the newest few
//! incarnation                          which one the cluster is in; missing: 0
//! recovery/incarnation                 an operator's word: the enclave is to begin that one
//! recovery/offer.cbor                  what the enclave offers for it
//! recovery/certificate.cbor            the signed certificate; with it there, everything is handed over:
//! recovery/snapshot.cbor, tail.cbor    the ledger, and the right edge of the store
//! recovery/blob.cbor                   the blob that the certificate names for this node; left out where none
//! recovery/releases/*.cbor             governors' releases of it
//! recovered-<incarnation>/             what was in `recovery/`, once the enclave has begun
//! ```
//!
//! Nothing of it is mirrored, and nothing of it is served over HTTP.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use casemate_door::{MAX_FRAME, RecoveryPiece, ToEnclave};
use casemate_proto::Incarnation;
use casemate_proto::cbor;
use casemate_proto::hash::sha256;
use casemate_recovery::SealedBlob;

use crate::folder::Folder;

/// How many blobs are kept.
const KEPT: usize = 16;
/// Bytes of a piece.
const PIECE: usize = MAX_FRAME / 4;
/// Most releases that are handed over.
const MAX_RELEASES: usize = 64;

/// The frames that hand over what a recovery begins with, and a hash of them all.
pub type HandOver = (Vec<Vec<u8>>, [u8; 32]);

fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn number(path: &Path) -> io::Result<Option<Incarnation>> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(|number| Some(Incarnation(number))).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidData, format!("`{}` is no number", path.display()))
        }),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Folder {
    fn recovery(&self) -> PathBuf {
        self.root().join("recovery")
    }

    /// The incarnation that the cluster is in, as far as this node knows, and whether its enclave is to
    /// begin another: then that one.
    ///
    /// # Errors
    /// If a file of it cannot be read or holds no number.
    pub fn incarnation(&self) -> io::Result<(Incarnation, bool)> {
        let current = number(&self.root().join("incarnation"))?.unwrap_or_default();
        let wanted = number(&self.recovery().join("incarnation"))?;
        Ok(wanted.filter(|wanted| *wanted > current).map_or((current, false), |to| (to, true)))
    }

    /// Keeps a blob, and lets go of the oldest beyond `KEPT`.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep_sealed(&self, bytes: &[u8]) -> io::Result<()> {
        let blob = match SealedBlob::decode(bytes) {
            Ok(blob) => blob,
            Err(error) => {
                tracing::error!(%error, "the enclave sealed what is no blob");
                return Ok(());
            }
        };
        let header = &blob.header;
        let boot = header.boot.to_hex();
        let boot = boot.get(2..18).unwrap_or_default();
        let name = format!("{:012}-{boot}-{:06}.cbor", header.size, header.number);
        let folder = self.root().join("sealed");
        fs::create_dir_all(&folder)?;
        self.files().write(&folder.join(name), bytes)?;
        let mut all: Vec<PathBuf> = fs::read_dir(&folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        all.sort();
        let old = all.len().saturating_sub(KEPT);
        all.iter().take(old).try_for_each(fs::remove_file)
    }

    /// Keeps what the enclave offers.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep_offer(&self, offer: &[u8]) -> io::Result<()> {
        fs::create_dir_all(self.recovery())?;
        self.files().write(&self.recovery().join("offer.cbor"), offer)
    }

    /// The enclave has begun an incarnation: notes it, and puts away what it was handed.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn keep_recovered(&self, incarnation: Incarnation) -> io::Result<()> {
        let text = format!("{incarnation}\n");
        self.files().write(&self.root().join("incarnation"), text.as_bytes())?;
        // an operator may have begun to prepare another
        if number(&self.recovery().join("incarnation"))? != Some(incarnation) {
            return Ok(());
        }
        fs::rename(self.recovery(), self.root().join(format!("recovered-{incarnation}")))
    }

    /// The frames that hand over what a recovery begins with, and a hash of it all; `None` while there is
    /// no certificate.
    ///
    /// # Errors
    /// If a file cannot be read, or one that is needed is missing.
    pub fn recovery_frames(&self) -> io::Result<Option<HandOver>> {
        let folder = self.recovery();
        let certificate = match fs::read(folder.join("certificate.cbor")) {
            Ok(certificate) => certificate,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let needed = |name: &str| {
            fs::read(folder.join(name)).map_err(|error| {
                io::Error::new(error.kind(), format!("`recovery/{name}`: {error}"))
            })
        };
        let blob = match fs::read(folder.join("blob.cbor")) {
            Err(error) if is_missing(&error) => Vec::new(),
            blob => blob?,
        };
        let mut pieces = vec![RecoveryPiece::Begin];
        let mut add = |bytes: &[u8], piece: fn(Vec<u8>) -> RecoveryPiece| {
            pieces.extend(bytes.chunks(PIECE).map(|chunk| piece(chunk.to_vec())));
        };
        add(&certificate, RecoveryPiece::Certificate);
        add(&needed("snapshot.cbor")?, RecoveryPiece::Snapshot);
        add(&needed("tail.cbor")?, RecoveryPiece::Tail);
        add(&blob, RecoveryPiece::Blob);
        let mut releases: Vec<PathBuf> = match fs::read_dir(folder.join("releases")) {
            Err(error) if is_missing(&error) => Vec::new(),
            entries => entries?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?,
        };
        releases.retain(|path| path.extension().is_some_and(|extension| extension == "cbor"));
        releases.sort();
        for path in releases.iter().take(MAX_RELEASES) {
            pieces.push(RecoveryPiece::Release(fs::read(path)?));
        }
        pieces.push(RecoveryPiece::End);
        let frames: Vec<Vec<u8>> =
            pieces.into_iter().map(|piece| cbor::encode(&ToEnclave::Recover(piece))).collect();
        let hash = sha256(&frames.concat());
        Ok(Some((frames, hash)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        (dir, folder)
    }

    #[test]
    fn a_folder_is_of_incarnation_0_until_it_says_otherwise() {
        let (dir, folder) = folder();
        assert_eq!(folder.incarnation().unwrap(), (Incarnation(0), false));
        fs::create_dir(dir.path().join("recovery")).unwrap();
        fs::write(dir.path().join("recovery/incarnation"), "2\n").unwrap();
        assert_eq!(folder.incarnation().unwrap(), (Incarnation(2), true));
        // told of another that its enclave began, it leaves what an operator prepares alone
        folder.keep_recovered(Incarnation(1)).unwrap();
        assert_eq!(folder.incarnation().unwrap(), (Incarnation(2), true));
        folder.keep_recovered(Incarnation(2)).unwrap();
        assert_eq!(folder.incarnation().unwrap(), (Incarnation(2), false));
        assert!(dir.path().join("recovered-2/incarnation").exists());
        folder.keep_recovered(Incarnation(2)).unwrap();
        fs::write(dir.path().join("incarnation"), "two").unwrap();
        assert!(folder.incarnation().unwrap_err().to_string().contains("is no number"));
    }

    #[test]
    fn nothing_is_handed_over_before_the_certificate_is_there_and_all_of_it_then() {
        let (dir, folder) = folder();
        folder.keep_offer(b"offer").unwrap();
        assert!(folder.recovery_frames().unwrap().is_none());
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join("recovery").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        file("certificate.cbor", b"certificate");
        assert!(folder.recovery_frames().unwrap_err().to_string().contains("snapshot.cbor"));
        file("snapshot.cbor", &vec![7; PIECE + 1]);
        file("tail.cbor", b"tail");
        file("releases/b.cbor", b"second");
        file("releases/a.cbor", b"first");
        file("releases/note.txt", b"none");
        let (frames, hash) = folder.recovery_frames().unwrap().unwrap();
        let pieces: Vec<ToEnclave> =
            frames.iter().map(|frame| cbor::decode(frame, MAX_FRAME).unwrap()).collect();
        let expected = [
            RecoveryPiece::Begin,
            RecoveryPiece::Certificate(b"certificate".to_vec()),
            RecoveryPiece::Snapshot(vec![7; PIECE]),
            RecoveryPiece::Snapshot(vec![7; 1]),
            RecoveryPiece::Tail(b"tail".to_vec()),
            RecoveryPiece::Release(b"first".to_vec()),
            RecoveryPiece::Release(b"second".to_vec()),
            RecoveryPiece::End,
        ];
        assert_eq!(pieces, expected.map(ToEnclave::Recover));
        file("blob.cbor", b"blob");
        let (more, other) = folder.recovery_frames().unwrap().unwrap();
        assert_eq!((more.len(), other != hash), (frames.len() + 1, true));
    }

    #[test]
    fn what_is_no_blob_is_not_kept_and_stops_nothing() {
        let (dir, folder) = folder();
        folder.keep_sealed(b"no blob").unwrap();
        assert!(!dir.path().join("sealed").exists());
    }
}
