//! A bounded window of ranges that are on their way, taken in order.

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;

use super::{Fetched, Sources};
use crate::error::StoreError;
use crate::options::{Started, StoreOptions};

/// One range of an object, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The number of the unit that begins it: a segment, or a part of a file.
    pub(crate) first: u64,
    /// How many units it has.
    pub(crate) count: u64,
    /// Its bytes in the object.
    pub(crate) range: Range<u64>,
}

/// Ranges that are on their way: as many as the options allow, whatever the length of the object.
pub(crate) struct Window<I> {
    sources: Arc<Sources>,
    object_len: u64,
    steps: I,
    waiting: VecDeque<(Step, Started<Option<Fetched>>)>,
    in_flight: usize,
}

impl<I: Iterator<Item = Step>> Window<I> {
    pub(crate) fn new(
        sources: Arc<Sources>,
        object_len: u64,
        steps: I,
        options: &StoreOptions<'_>,
    ) -> Self {
        let in_flight = options.limits.in_flight;
        Self { sources, object_len, steps, waiting: VecDeque::new(), in_flight }
    }

    /// The next range in order; `None` at the end. The inner `None`: no source is left.
    pub(crate) fn next(
        &mut self,
        options: &StoreOptions<'_>,
    ) -> Result<Option<(Step, Option<Fetched>)>, StoreError> {
        while self.waiting.len() < self.in_flight {
            let Some(step) = self.steps.next() else { break };
            let (sources, range) = (Arc::clone(&self.sources), step.range.clone());
            let object_len = self.object_len;
            let fetch = async move { sources.fetch(range, object_len).await };
            self.waiting.push_back((step, Started::new(fetch)?));
        }
        let Some((step, mut started)) = self.waiting.pop_front() else { return Ok(None) };
        let fetched = options.join(&mut started)?;
        self.sources.tell(options);
        Ok(Some((step, fetched)))
    }
}
