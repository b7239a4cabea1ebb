//! Files on their way to the parent's store, kept until the parent says that they are on its disk.

use std::collections::VecDeque;

use casemate_door::{FromEnclave, StoreFile};

/// Above this many bytes that are not acknowledged the node takes nothing new.
const FULL: usize = 64 * 1024 * 1024;

/// Batches that are not acknowledged, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    next: u64,
    bytes: usize,
    batches: VecDeque<(u64, Vec<StoreFile>)>,
}

fn size(files: &[StoreFile]) -> usize {
    files
        .iter()
        .fold(0, |sum, file| sum.saturating_add(file.bytes.len()).saturating_add(file.path.len()))
}

impl Outbox {
    /// Takes files; what to send now.
    pub(crate) fn put(&mut self, files: Vec<casemate_audit::store::File>) -> FromEnclave {
        let files: Vec<StoreFile> =
            files.into_iter().map(|(path, bytes)| StoreFile { path, bytes }).collect();
        let batch = self.next;
        self.next = self.next.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size(&files));
        self.batches.push_back((batch, files.clone()));
        FromEnclave::Publish { batch, files }
    }

    /// Everything up to this batch is on the disk.
    pub(crate) fn stored(&mut self, batch: u64) {
        while self.batches.front().is_some_and(|(number, _)| *number <= batch) {
            if let Some((_, files)) = self.batches.pop_front() {
                self.bytes = self.bytes.saturating_sub(size(&files));
            }
        }
    }

    /// What to send to a parent that has just connected.
    pub(crate) fn again(&self) -> impl Iterator<Item = FromEnclave> + '_ {
        self.batches
            .iter()
            .map(|(batch, files)| FromEnclave::Publish { batch: *batch, files: files.clone() })
    }

    /// Whether too much waits.
    pub(crate) const fn is_full(&self) -> bool {
        self.bytes > FULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_stay_until_they_are_acknowledged() {
        let mut outbox = Outbox::default();
        let file = |name: &str| vec![(name.to_owned(), vec![1, 2])];
        for name in ["a", "b", "c"] {
            let _ = outbox.put(file(name));
        }
        outbox.stored(1);
        let left: Vec<_> = outbox.again().collect();
        assert_eq!(left.len(), 1);
        assert!(
            matches!(&left[0], FromEnclave::Publish { batch: 2, files } if files[0].path == "c")
        );
        outbox.stored(7);
        assert_eq!((outbox.again().count(), outbox.bytes), (0, 0));
    }

    #[test]
    fn a_parent_that_stores_nothing_makes_the_outbox_full() {
        let mut outbox = Outbox::default();
        let _ = outbox.put(vec![("a".to_owned(), vec![0; FULL])]);
        assert!(outbox.is_full());
        outbox.stored(0);
        assert!(!outbox.is_full());
    }
}
