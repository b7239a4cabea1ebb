//! A blob's content: the shares that its header lists, in that order, as one CBOR array of byte
//! strings.

use minicbor::{Decoder, Encoder};
use zeroize::Zeroizing;

use crate::envelope::TAG;
use crate::share::SealableShare;

/// Bytes that a share's length takes at most.
const LENGTH: usize = 9;

/// Most bytes that the content of these shares takes.
pub(crate) fn size(shares: &[SealableShare]) -> usize {
    let each = shares.iter().map(|share| share.secret.len().saturating_add(LENGTH));
    each.fold(LENGTH.saturating_add(TAG), usize::saturating_add)
}

/// Written into room that is enough from the beginning, so that no copy of it is left behind.
pub(crate) fn write(shares: &[SealableShare]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(size(shares)));
    let mut encoder = Encoder::new(&mut *out);
    encoder.array(u64::try_from(shares.len()).ok()?).ok()?;
    for share in shares {
        encoder.bytes(&share.secret).ok()?;
    }
    Some(out)
}

/// Exactly `count` shares, in the one form that [`write`] gives them.
pub(crate) fn read(plain: &[u8], count: usize) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    let mut decoder = Decoder::new(plain);
    if decoder.array().ok()? != u64::try_from(count).ok() {
        return None;
    }
    let mut shares = Vec::new();
    for _ in 0..count {
        shares.push(Zeroizing::new(decoder.bytes().ok()?.to_vec()));
    }
    (decoder.position() == plain.len()).then_some(shares)
}
