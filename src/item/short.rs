//! A few bytes that every item carries: copied, not counted, when they are short.

use std::{cmp::Ordering, hash, sync::Arc};

/// Up to so many bytes take no memory of their own: a lineage with three fan-outs, a key as most are.
const INLINE: usize = 22;

/// Bytes that do not change; cheap to clone. Compared as bytes, however they are kept.
#[derive(Clone)]
pub(super) enum Short {
    Inline(u8, [u8; INLINE]),
    Shared(Arc<[u8]>),
}

impl Short {
    pub(super) fn new(bytes: &[u8]) -> Short {
        if bytes.len() > INLINE {
            return Short::Shared(bytes.into());
        }
        let mut inline = [0; INLINE];
        inline[..bytes.len()].copy_from_slice(bytes);
        Short::Inline(bytes.len() as u8, inline)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Short::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Short::Shared(bytes) => bytes,
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
