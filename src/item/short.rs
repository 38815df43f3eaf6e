//! A few bytes that every item carries: copied, not counted, when they are short.

use std::{cmp::Ordering, hash, sync::Arc};

/// Up to so many bytes take no memory of their own: a lineage with three fan-outs, a key as most are.
const INLINE: usize = 23;

/// Bytes that do not change; cheap to clone. Compared as bytes, however they are kept.
pub(super) enum Short {
    Inline(Inline),
    Shared(Arc<[u8]>),
}

/// The bytes, and behind them how many they are. Copied with each step of each item, thus as whole words: what is copied by
/// uneven parts makes the processor wait for the parts before it.
#[derive(Clone, Copy)]
#[repr(align(8))]
pub(super) struct Inline([u8; INLINE + 1]);

impl Short {
    pub(super) fn new(bytes: &[u8]) -> Short {
        if bytes.len() > INLINE {
            return Short::Shared(bytes.into());
        }
        let mut inline = [0; INLINE + 1];
        inline[..bytes.len()].copy_from_slice(bytes);
        inline[INLINE] = bytes.len() as u8;
        Short::Inline(Inline(inline))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Short::Inline(Inline(inline)) => &inline[..usize::from(inline[INLINE])],
            Short::Shared(bytes) => bytes,
        }
    }
}

impl Clone for Short {
    #[inline(always)]
    fn clone(&self) -> Short {
        match self {
            Short::Inline(inline) => Short::Inline(*inline),
            Short::Shared(bytes) => Short::Shared(bytes.clone()),
        }
    }
}

impl PartialEq for Short {
    fn eq(&self, other: &Short) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Short {}

impl PartialOrd for Short {
    fn partial_cmp(&self, other: &Short) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Short {
    fn cmp(&self, other: &Short) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl hash::Hash for Short {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_bytes_stand_in_place_and_long_ones_are_shared() {
        let long: Vec<u8> = (0..64).collect();
        for length in [0, 1, 22, 23, 24, 64] {
            let short = Short::new(&long[..length]);
            assert_eq!(short.as_bytes(), &long[..length]);
            assert_eq!(matches!(short, Short::Inline(_)), length <= INLINE);
            assert!(short == short.clone());
        }
    }
}
