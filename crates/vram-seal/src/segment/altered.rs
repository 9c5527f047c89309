//! Altered segments in errors and events: the first few, and how many there are.

use core::fmt;
use std::sync::Arc;

/// The altered segments of one shard: the first [`LISTED_MAX`](Self::LISTED_MAX) of them, and their
/// count. Errors, events and reports carry it: a copy costs the same for one segment and for a
/// million.
///
/// Empty if each segment is sound by itself and the content as a whole differs.
///
/// ```
/// use vram_seal::AlteredSegments;
///
/// let many: AlteredSegments = (0..1000).collect();
/// assert_eq!(many.first().len(), AlteredSegments::LISTED_MAX);
/// assert_eq!(many.count(), 1000);
/// assert_eq!(many.to_string(), "segments 0, 1, 2, 3, 4, 5, 6, 7 and 992 more");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AlteredSegments {
    /// In ascending order.
    first: Arc<[u64]>,
    count: u64,
}

/// How many segments a text names.
const SHOWN: usize = 8;

impl AlteredSegments {
    /// The most segments that are listed.
    pub const LISTED_MAX: usize = 32;

    /// A list whose first segments, in ascending order, are known already: `count` is the number of
    /// all.
    pub fn listing(first: impl IntoIterator<Item = u64>, count: usize) -> Self {
        let first: Self = first.into_iter().take(Self::LISTED_MAX).collect();
        let count = u64::try_from(count).unwrap_or(u64::MAX).max(first.count);
        Self { count, ..first }
    }

    /// The first altered segments, in ascending order.
    #[must_use]
    pub fn first(&self) -> &[u64] {
        &self.first
    }

    /// The number of altered segments, listed or not.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether no segment is altered by itself.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// From any order, each segment once.
impl FromIterator<u64> for AlteredSegments {
    fn from_iter<I: IntoIterator<Item = u64>>(segments: I) -> Self {
        let (mut first, mut count) = (Vec::new(), 0_u64);
        for segment in segments {
            count = count.saturating_add(1);
            let full = first.len() >= Self::LISTED_MAX;
            if full && first.last().is_some_and(|last| *last < segment) {
                continue;
            }
            let position = first.partition_point(|known| *known < segment);
            first.insert(position, segment);
            first.truncate(Self::LISTED_MAX);
        }
        Self { first: first.into(), count }
    }
}

impl From<Vec<u64>> for AlteredSegments {
    fn from(segments: Vec<u64>) -> Self {
        segments.as_slice().into()
    }
}

impl From<&[u64]> for AlteredSegments {
    fn from(segments: &[u64]) -> Self {
        segments.iter().copied().collect()
    }
}

/// Equal to a list if it lists all segments, and these.
impl PartialEq<[u64]> for AlteredSegments {
    fn eq(&self, other: &[u64]) -> bool {
        u64::try_from(other.len()) == Ok(self.count) && *self.first == *other
    }
}

impl PartialEq<Vec<u64>> for AlteredSegments {
    fn eq(&self, other: &Vec<u64>) -> bool {
        *self == *other.as_slice()
    }
}

impl<const N: usize> PartialEq<[u64; N]> for AlteredSegments {
    fn eq(&self, other: &[u64; N]) -> bool {
        *self == *other.as_slice()
    }
}

impl fmt::Display for AlteredSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = 0_u64;
        for segment in self.first.iter().take(SHOWN) {
            match (shown, self.count) {
                (0, 1) => write!(f, "segment {segment}")?,
                (0, _) => write!(f, "segments {segment}")?,
                _ => write!(f, ", {segment}")?,
            }
            shown = shown.saturating_add(1);
        }
        match self.count.saturating_sub(shown) {
            0 if shown == 0 => f.write_str("its content as a whole"),
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_listed_in_order_and_all_are_counted() {
        let listed: AlteredSegments = (0..100).rev().map(|segment| segment * 2).collect();
        let wanted: Vec<u64> = (0..32).map(|segment| segment * 2).collect();
        assert_eq!(listed.first(), wanted);
        assert_eq!(listed.count(), 100);
        assert!(listed != *wanted, "the list is not all of them");
        let few = AlteredSegments::from([7, 3].as_slice());
        assert!(few == [3, 7] && few != [3] && few != [3, 7, 9] && !few.is_empty());
    }

    #[test]
    fn a_text_names_a_few_and_counts_the_rest() {
        let text = |count: u64| (0..count).collect::<AlteredSegments>().to_string();
        assert_eq!(text(0), "its content as a whole");
        assert_eq!(text(1), "segment 0");
        assert_eq!(text(2), "segments 0, 1");
        assert_eq!(text(8), "segments 0, 1, 2, 3, 4, 5, 6, 7");
        assert_eq!(text(9), "segments 0, 1, 2, 3, 4, 5, 6, 7 and 1 more");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_readable_as_json_and_reads_back() {
        let listed: AlteredSegments = [3, 7].as_slice().into();
        let text = serde_json::to_string(&listed).unwrap();
        assert_eq!(text, r#"{"first":[3,7],"count":2}"#);
        assert_eq!(serde_json::from_str::<AlteredSegments>(&text).unwrap(), listed);
    }
}
