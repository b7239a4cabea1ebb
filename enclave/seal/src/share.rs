//! Shares on their way into a blob and out of one.

use core::fmt;

use casemate_recovery::SealedKey;
use zeroize::Zeroizing;

/// A share that is to be sealed. Whoever makes one hands its bytes over: there is no way to read
/// them, only to seal them.
pub struct SealableShare {
    pub(crate) key: SealedKey,
    pub(crate) secret: Zeroizing<Vec<u8>>,
}

impl SealableShare {
    /// A key's share as the crate that holds it writes it.
    #[must_use]
    pub const fn new(key: SealedKey, secret: Zeroizing<Vec<u8>>) -> Self {
        Self { key, secret }
    }

    /// What is public about it.
    #[must_use]
    pub const fn key(&self) -> &SealedKey {
        &self.key
    }
}

impl fmt::Debug for SealableShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealableShare")
            .field("key", &self.key)
            .field("secret", &"<redacted>")
            .finish()
    }
}

/// A share that came out of a blob in a recovery. Not `Clone`: it goes to the crate that makes a key
/// of it.
pub struct OpenedShare {
    key: SealedKey,
    secret: Zeroizing<Vec<u8>>,
}

impl OpenedShare {
    pub(crate) const fn new(key: SealedKey, secret: Zeroizing<Vec<u8>>) -> Self {
        Self { key, secret }
    }

    /// What is public about it.
    #[must_use]
    pub const fn key(&self) -> &SealedKey {
        &self.key
    }

    /// The share as it was written.
    #[must_use]
    pub fn dangerous_secret(self) -> Zeroizing<Vec<u8>> {
        self.secret
    }
}

impl fmt::Debug for OpenedShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedShare")
            .field("key", &self.key)
            .field("secret", &"<redacted>")
            .finish()
    }
}
