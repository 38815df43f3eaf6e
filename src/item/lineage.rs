//! The identity of an item in its run.

use super::short::Short;
use std::fmt;

/// Source, ordinal in its listing, then the index at each fan-out: a blob that sorts by memcmp in listing order,
/// whatever the order of arrival (RUNS K1).
///
/// Layout, big-endian: stage (2 bytes), ordinal (8 bytes), then 4 bytes for each fan-out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(Short);

impl Lineage {
    /// The item at `ordinal` (from 0) of what the stage at place `stage` listed, or the group at that place of a gather.
    pub fn listed(stage: u16, ordinal: u64) -> Lineage {
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&stage.to_be_bytes());
        bytes[2..].copy_from_slice(&ordinal.to_be_bytes());
        Lineage::from_bytes(&bytes)
    }

    /// The value at `index` (from 0) of several that this item gave.
    pub fn child(&self, index: u32) -> Lineage {
        let mut bytes = Vec::with_capacity(self.as_bytes().len() + 4);
        bytes.extend_from_slice(self.as_bytes());
        bytes.extend_from_slice(&index.to_be_bytes());
        Lineage::from_bytes(&bytes)
    }

    /// The stage that listed the item, or the gather that made the group, from which this one descends.
    pub fn source(&self) -> u16 {
        self.as_bytes().first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
    }

    /// The place in that listing, from 0.
    pub fn ordinal(&self) -> u64 {
        self.as_bytes().get(2..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// The bytes as they are stored and compared.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Takes stored bytes back.
    pub fn from_bytes(bytes: &[u8]) -> Lineage {
        Lineage(Short::new(bytes))
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lineages_sort_in_listing_order_and_children_behind_their_parent() {
        let (a, b) = (Lineage::listed(0, 255), Lineage::listed(0, 256));
        assert!(a < b);
        assert!(a.child(0) > a && a.child(1) > a.child(0) && a.child(70_000) < b);
        let mut deep = a.clone();
        for level in 0..6 {
            let next = deep.child(level);
            assert!(next > deep && next < b);
            assert_eq!(Lineage::from_bytes(next.as_bytes()), next);
            assert_eq!(next.as_bytes().len(), deep.as_bytes().len() + 4);
            deep = next;
        }
        assert_eq!(Lineage::from_bytes(a.child(3).as_bytes()), a.child(3));
        let child = Lineage::listed(7, u64::MAX).child(2);
        assert_eq!((child.source(), child.ordinal()), (7, u64::MAX));
        assert_eq!((Lineage::from_bytes(&[1]).source(), Lineage::from_bytes(&[1]).ordinal()), (0, 0));
    }
}
