//! Bytes that could not be wiped or released: counted, handed out to nobody, and tried again.
//!
//! No thread waits for a try. The calls that need room or look after things try what is due: the
//! first time at once, then after ever longer waits.

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::panic::catch_unwind;
use std::time::Instant;

use vram_alloc::ByteLen;
use vram_gpu::GpuError;

use crate::block::Unreturned;
use crate::gpu::Gpu;
use crate::sync::lock;

/// The wait after the first try that failed; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// All bytes of one GPU that could not be given back.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    waiting: Vec<Waiting>,
    /// Bytes that a thread is trying to give back at this moment.
    trying: ByteLen,
    last: Option<GpuError>,
}

/// One placement that could not be given back.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) what: Unreturned,
    failed: u32,
    /// When it is tried again; `None` for memory that was taken out of use for good.
    due: Option<Instant>,
}

impl Waiting {
    fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }
}

impl Aside {
    /// Takes one entry for a try.
    fn take(&mut self, mut which: impl FnMut(&Waiting) -> bool) -> Option<Waiting> {
        let index = self.waiting.iter().position(&mut which)?;
        let taken = self.waiting.swap_remove(index);
        self.trying = self.trying.saturating_add(taken.what.placement.footprint());
        Some(taken)
    }

    fn put_back(&mut self, waiting: Waiting) {
        self.trying = self.trying.saturating_sub(waiting.what.placement.footprint());
        self.last = Some(waiting.what.error);
        self.waiting.push(waiting);
    }
}

impl Gpu {
    /// Sets aside a placement whose bytes could not be wiped or released. They are tried again.
    pub fn set_aside(&self, unreturned: Unreturned) {
        // In mode `Blocks` a block that was lost in a panic of the device can never be freed.
        let hopeless = self.blocks().is_some() && unreturned.block.is_none();
        self.keep_aside(unreturned, (!hopeless).then(Instant::now));
    }

    /// Sets aside a placement whose memory is not trusted any more. While the manager lives, it is
    /// handed out to nobody.
    pub(crate) fn set_aside_for_good(&self, unreturned: Unreturned) {
        self.keep_aside(unreturned, None);
    }

    fn keep_aside(&self, what: Unreturned, due: Option<Instant>) {
        let (bytes, error) = (what.placement.footprint(), what.error);
        tracing::error!(gpu = self.index, bytes = bytes.get(), %error, "bytes could not be given back and stay counted");
        // Told before another thread can find them and tell that they came back.
        self.tenants.not_returned(self.index, bytes);
        let mut aside = lock(&self.unreturned);
        aside.last = Some(error);
        aside.waiting.push(Waiting { what, failed: 0, due });
    }

    /// Tries again to give back what is due. The caller holds no lock.
    pub fn bring_back(&self) {
        // Most often there is nothing, for which the time is not asked.
        if lock(&self.unreturned).waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        if !lock(&self.unreturned).waiting.iter().any(|waiting| waiting.is_due(now)) {
            return;
        }
        // A reset and the end of the manager wait for this call; before both, nothing is tried.
        let Ok(_under_way) = self.enter() else { return };
        let mut bytes = ByteLen::ZERO;
        loop {
            // Each entry once: one that fails again is due later than `now`.
            let Some(waiting) = lock(&self.unreturned).take(|waiting| waiting.is_due(now)) else {
                break;
            };
            let len = waiting.what.placement.footprint();
            if self.try_again(waiting).is_ok() {
                bytes = bytes.saturating_add(len);
            } else if self.ready().is_err() {
                break;
            }
        }
        if !bytes.is_zero() {
            tracing::info!(gpu = self.index, bytes = bytes.get(), "bytes came back");
            self.tenants.came_back(self.index, bytes);
        }
    }

    /// Takes any entry for another try, or because the memory is gone.
    pub(crate) fn take_unreturned(&self) -> Option<Waiting> {
        lock(&self.unreturned).take(|_any| true)
    }

    /// All entries, each taken once.
    pub(crate) fn take_all_unreturned(&self) -> Vec<Waiting> {
        core::iter::from_fn(|| self.take_unreturned()).collect()
    }

    /// Sets an entry aside again after another failed try.
    pub(crate) fn still_unreturned(&self, mut waiting: Waiting) {
        let doubled = FIRST_WAIT.saturating_mul(1_u32.checked_shl(waiting.failed).unwrap_or(0));
        let wait = if doubled.is_zero() { LONGEST_WAIT } else { doubled.min(LONGEST_WAIT) };
        waiting.failed = waiting.failed.saturating_add(1);
        waiting.due = waiting.due.and_then(|_was_due| Instant::now().checked_add(wait));
        lock(&self.unreturned).put_back(waiting);
    }

    /// Releases an entry after a successful try: its bytes can be handed out again.
    pub(crate) fn returned(&self, unreturned: Unreturned) {
        let Unreturned { placement, kept, block, .. } = unreturned;
        let bytes = placement.footprint();
        let mut arena = lock(&self.arena);
        self.take_back(&mut arena, placement);
        // Under the arena's lock, so that all accounts change together for every reader.
        kept.release();
        let mut aside = lock(&self.unreturned);
        aside.trying = aside.trying.saturating_sub(bytes);
        drop(aside);
        drop(arena);
        drop(block);
    }

    /// The sum of the bytes that were set aside.
    pub(crate) fn unreturned_bytes(&self) -> ByteLen {
        self.unreturned().map_or(ByteLen::ZERO, |(bytes, _last)| bytes)
    }

    /// The sum of the bytes that were set aside, and the latest error.
    pub fn unreturned(&self) -> Option<(ByteLen, GpuError)> {
        let aside = lock(&self.unreturned);
        let footprints = aside.waiting.iter().map(|one| one.what.placement.footprint());
        let bytes = footprints.fold(aside.trying, ByteLen::saturating_add);
        aside.last.filter(|_error| !bytes.is_zero()).map(|error| (bytes, error))
    }

    /// Releases all entries after the device was emptied. Returns their bytes.
    pub fn settle_unreturned(&self) -> ByteLen {
        let mut bytes = ByteLen::ZERO;
        while let Some(Waiting { what, .. }) = self.take_unreturned() {
            bytes = bytes.saturating_add(what.placement.footprint());
            let _dropped = catch_unwind(AssertUnwindSafe(|| self.returned(what)));
        }
        bytes
    }
}
