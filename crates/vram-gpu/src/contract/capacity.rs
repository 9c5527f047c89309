//! Checks of allocating, refusing and freeing.

use vram_alloc::ByteLen;

use super::{Factory, allocate, range};
use crate::{Device, GpuError};

/// An allocation costs at least its bytes, and freeing it returns exactly what it cost.
pub fn memory_figures_follow_allocations(factory: Factory<'_>) {
    for device in factory() {
        costs_nothing(&*device, &|| {
            let before = device.memory().unwrap().free;
            let memory = allocate(&*device, 3 << 20);
            let during = device.memory().unwrap().free;
            assert!(before.checked_sub(during).unwrap() >= ByteLen::new(3 << 20));
            drop(memory);
        });
    }
}

/// Zero bytes, more bytes than are free, more bytes than the device has.
pub fn what_cannot_be_allocated_is_refused_and_changes_nothing(factory: Factory<'_>) {
    for device in factory() {
        let gpu = device.info().index;
        let before = device.memory().unwrap();
        let zero = device.allocate(ByteLen::ZERO).unwrap_err();
        assert_eq!(zero, GpuError::ZeroLength { gpu });
        let total = device.info().total;
        for wanted in [total.saturating_add(ByteLen::new(1)), ByteLen::new(u64::MAX)] {
            let refused = device.allocate(wanted).unwrap_err();
            let GpuError::OutOfMemory { gpu: named, wanted: asked, free } = refused else {
                unreachable!("{wanted} on a device of {total} gave: {refused}");
            };
            assert_eq!((named, asked), (gpu, wanted));
            assert!(free.is_none_or(|free| free <= total));
            assert!(refused.is_out_of_memory() && !refused.is_sticky());
        }
        assert_eq!(device.memory().unwrap(), before);
        assert!(device.state().is_ready());
    }
}

/// No two live allocations share an address, and none is at zero.
pub fn addresses_of_live_allocations_are_apart(factory: Factory<'_>) {
    for device in factory() {
        let memories: Vec<_> = [1, 4096, 1, 300, 1 << 20].map(|len| allocate(&*device, len)).into();
        let mut spans: Vec<_> =
            memories.iter().map(|m| (m.address().get(), m.len().get())).collect();
        spans.sort_unstable();
        assert!(spans[0].0 > 0);
        assert!(spans.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{spans:?}");
    }
}

/// Both `free` and dropping the allocation return its bytes.
pub fn freeing_gives_the_bytes_back(factory: Factory<'_>) {
    for device in factory() {
        costs_nothing(&*device, &|| {
            for round in 0..20 {
                let memory = allocate(&*device, 1 << 20);
                memory.fill(range(&*memory, 0, 1 << 20), round).unwrap();
                if round % 2 == 0 { memory.free().unwrap() } else { drop(memory) }
            }
        });
    }
}

/// Rounds over which the free figure may not fall.
const ROUNDS: usize = 4;
/// How often such a series of rounds may begin.
const SERIES: usize = 4;

/// Runs work in series of rounds until the device's free figure does not fall over a series.
///
/// Drivers allocate memory for themselves, in steps, when more of something is used than ever
/// before: how many streams that is depends on how many threads happened to meet. Bytes that the
/// work loses are lost in every series.
pub(super) fn costs_nothing(device: &dyn Device, work: &dyn Fn()) {
    let figures = falling(|round| {
        if round > 0 {
            work();
        }
        device.memory().unwrap().free
    });
    assert!(figures.is_none(), "bytes are lost in every {ROUNDS} rounds; free: {figures:?}");
}

/// The figures after each round, if they fall over every series of rounds. Round zero is the figure
/// before all.
fn falling(mut figure: impl FnMut(usize) -> ByteLen) -> Option<Vec<ByteLen>> {
    let mut figures = vec![figure(0)];
    for _ in 0..SERIES {
        let before = figures[figures.len() - 1];
        for _ in 0..ROUNDS {
            figures.push(figure(figures.len()));
        }
        if figures[figures.len() - 1] >= before {
            return None;
        }
    }
    Some(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_taken_at_first_use_is_no_loss_and_what_falls_in_every_series_is() {
        let mib = |count: usize| ByteLen::from_usize((1000 - count) << 20);
        // Streams are made in rounds 1, 3 and 6: as many as threads met.
        let grows = |round: usize| mib([1, 3, 6].iter().filter(|at| **at <= round).count() * 2);
        assert_eq!(falling(grows), None);
        // The driver gives out steps of 2 MiB, so that a small loss shows in every third round.
        assert!(falling(|round| mib(round / 3 * 2)).is_some());
        assert!(falling(mib).is_some());
        assert_eq!(falling(|_round| mib(7)), None);
    }
}
