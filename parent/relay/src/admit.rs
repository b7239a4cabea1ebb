//! How many connections there may be: in all, and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    most: usize,
    most_per_address: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are too many.
    All,
    /// There are too many from this address.
    Address,
}

impl Full {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::All => "too_many",
            Self::Address => "too_many_from_address",
        }
    }
}

/// A connection that counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Admitted {
    address: IpAddr,
    open: Arc<Mutex<Open>>,
}

impl Admission {
    pub(crate) fn new(most: usize, most_per_address: usize) -> Self {
        Self { most, most_per_address, open: Arc::default() }
    }

    pub(crate) fn admit(&self, address: IpAddr) -> Result<Admitted, Full> {
        // an IPv4 address is one address, however it came
        let address = address.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.most {
            return Err(Full::All);
        }
        let from_address = open.by_address.get(&address).copied().unwrap_or(0);
        if from_address >= self.most_per_address {
            return Err(Full::Address);
        }
        open.all = open.all.saturating_add(1);
        open.by_address.insert(address, from_address.saturating_add(1));
        Ok(Admitted { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all = open.all.saturating_sub(1);
        match open.by_address.get(&self.address).copied() {
            Some(count @ 2..) => {
                open.by_address.insert(self.address, count.saturating_sub(1));
            }
            _ => {
                open.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_in_all_and_by_address_and_forgotten() {
        let admission = Admission::new(3, 2);
        let one = admission.admit(ip("10.0.0.1")).unwrap();
        let two = admission.admit(ip("::ffff:10.0.0.1")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.1")).unwrap_err(), Full::Address);
        let three = admission.admit(ip("10.0.0.2")).unwrap();
        assert_eq!(admission.admit(ip("10.0.0.3")).unwrap_err(), Full::All);
        drop(one);
        let four = admission.admit(ip("10.0.0.1")).unwrap();
        drop((two, three, four));
        assert!(admission.open.lock().unwrap().by_address.is_empty());
        assert_eq!(admission.open.lock().unwrap().all, 0);
    }
}
