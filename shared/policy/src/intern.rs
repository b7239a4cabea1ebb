//! Names held once and counted, so that a fact of the book is small however long its names are.

use std::{collections::BTreeMap, sync::Arc};

#[derive(Clone, Debug)]
pub(crate) struct Names<T> {
    ids: BTreeMap<Arc<T>, u32>,
    slots: Vec<Option<(Arc<T>, u32)>>,
    free: Vec<u32>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { ids: BTreeMap::new(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<T: Ord + Clone> Names<T> {
    /// The number of a name, held once more.
    pub(crate) fn hold(&mut self, name: &T) -> u32 {
        if let Some(&id) = self.ids.get(name) {
            if let Some(Some((_, holders))) = self.slot(id) {
                *holders = holders.saturating_add(1);
            }
            return id;
        }
        let name = Arc::new(name.clone());
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.slots.push(None);
                // a book holds fewer than 2³² charges, so fewer names
                u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        if let Some(slot) = self.slot(id) {
            *slot = Some((name.clone(), 1));
        }
        self.ids.insert(name, id);
        id
    }

    /// Lets go of a name once; with its last holder the number is free.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(slot) = self.slot(id) else { return };
        let Some((name, holders)) = slot else { return };
        *holders = holders.saturating_sub(1);
        if *holders == 0 {
            let name = name.clone();
            *slot = None;
            self.ids.remove(&name);
            self.free.push(id);
        }
    }

    pub(crate) fn find(&self, name: &T) -> Option<u32> {
        self.ids.get(name).copied()
    }

    pub(crate) fn name(&self, id: u32) -> Option<&T> {
        let slot = self.slots.get(usize::try_from(id).ok()?)?;
        slot.as_ref().map(|(name, _)| name.as_ref())
    }

    /// The names, sorted, and the place of each number among them.
    pub(crate) fn table(&self) -> (Vec<T>, BTreeMap<u32, u32>) {
        let names = self.ids.keys().map(|name| name.as_ref().clone()).collect();
        let places = self.ids.values().copied().zip(0_u32..).collect();
        (names, places)
    }

    fn slot(&mut self, id: u32) -> Option<&mut Option<(Arc<T>, u32)>> {
        self.slots.get_mut(usize::try_from(id).ok()?)
    }
}
