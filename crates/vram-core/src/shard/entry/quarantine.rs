//! What is known of the alterations of one shard.

use std::collections::BTreeSet;
use std::sync::Arc;

use vram_seal::AlteredSegments;

/// All segments of a shard that were found altered. Repairs and verdicts read them all; everything
/// else gets the [`listed`](Self::listed) ones.
///
/// Shared, and replaced by a changed copy where a reader holds it: two readings are of the same
/// quarantine, and know the same, only if they are the same allocation.
#[derive(Clone, Debug)]
pub(crate) struct Quarantine {
    /// An ordered set: a scrub that finds a million segments, one in each step, adds to it a million
    /// times.
    segments: BTreeSet<u64>,
    listed: AlteredSegments,
}

impl Quarantine {
    /// Adds what a check found. Returns true if this is the first finding.
    pub(crate) fn add(known: &mut Option<Arc<Self>>, found: &[u64]) -> bool {
        let first = known.is_none();
        let this = known.get_or_insert_with(|| Arc::new(Self::new()));
        if found.iter().all(|segment| this.segments.contains(segment)) {
            return first;
        }
        let this = Arc::make_mut(this);
        this.segments.extend(found);
        let first_few = this.segments.iter().take(AlteredSegments::LISTED_MAX).copied();
        this.listed = AlteredSegments::listing(first_few, this.segments.len());
        first
    }

    fn new() -> Self {
        Self { segments: BTreeSet::new(), listed: AlteredSegments::default() }
    }

    /// The first altered segments, and how many there are. Empty if each segment is sound and the
    /// content as a whole differs.
    pub(crate) fn listed(&self) -> AlteredSegments {
        self.listed.clone()
    }

    /// All altered segments, in ascending order.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        self.segments.iter().copied()
    }

    /// Whether all of these segments are known to be altered.
    pub(crate) fn knows(&self, segments: &[u64]) -> bool {
        segments.iter().all(|segment| self.segments.contains(segment))
    }

    /// Whether both are the same reading.
    pub(crate) fn is_same(one: Option<&Arc<Self>>, other: Option<&Arc<Self>>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_findings_one_at_a_time_cost_no_more_than_their_number() {
        let mut known = None;
        // Quadratic, this would move 4 × 10^12 bytes.
        for segment in (0..1_000_000).rev() {
            assert_eq!(Quarantine::add(&mut known, &[segment]), segment == 999_999);
        }
        let known = known.unwrap();
        assert_eq!((known.listed().count(), known.all().count()), (1_000_000, 1_000_000));
        assert_eq!(known.listed().first(), (0..32).collect::<Vec<_>>());
    }

    #[test]
    fn a_reading_is_the_same_until_something_new_is_found() {
        let mut known = None;
        assert!(Quarantine::add(&mut known, &[]), "the content as a whole");
        let reading = known.clone();
        assert!(!Quarantine::add(&mut known, &[]));
        assert!(Quarantine::is_same(reading.as_ref(), known.as_ref()));
        Quarantine::add(&mut known, &[4]);
        assert!(!Quarantine::is_same(reading.as_ref(), known.as_ref()));
        // Lifted, and the same segments are found again: not what was read.
        let (reading, mut again) = (known, None);
        Quarantine::add(&mut again, &[4]);
        assert!(!Quarantine::is_same(reading.as_ref(), again.as_ref()));
        assert!(reading.is_some_and(|reading| reading.knows(&[4]) && !reading.knows(&[4, 5])));
    }
}
