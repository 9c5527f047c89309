//! Property: a host device agrees with plain vectors and one sum.
//!
//! Method: the reference keeps a `Vec<Option<u8>>`-like copy of every live allocation (written
//! bytes, and bytes that are still garbage) and the sum of their lengths. Sequences of allocations,
//! frees, writes, fills, copies, queued copies and resets run against both. After each step the
//! test compares the changed bytes and the counts, and at the end all bytes. A third of the
//! positions is drawn near chunk boundaries, where mistakes are most likely.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the reference is plain arithmetic on small numbers, and a test may panic"
)]

#[macro_use]
extern crate vram_testkit;

use proptest::prelude::*;
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::{Device, DeviceMemory, GpuError, HostDevice};

const CHUNK: usize = 2 << 20;
const LEN_MAX: usize = 2 * CHUNK + 999;
const TOTAL: usize = 3 * LEN_MAX;

#[derive(Clone, Debug)]
enum Step {
    Allocate { len: usize },
    Free { pick: usize, explicit: bool },
    Write { pick: usize, at: usize, len: usize, value: u8 },
    Fill { pick: usize, at: usize, len: usize, value: u8 },
    Copy { to: usize, at: usize, from: usize, start: usize, len: usize },
    Queue { pick: usize, at: usize, len: usize, value: u8 },
    Foreign { len: usize },
    Reset,
}

/// A position that is often within a few bytes of a chunk boundary.
fn position() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 0..LEN_MAX,
        1 => (0..=2_usize, 0..=6_usize).prop_map(|(n, d)| (n * CHUNK + d).saturating_sub(3)),
    ]
}

/// A length: mostly short, sometimes across several chunks, sometimes exactly a chunk.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..5000_usize,
        1 => 0..LEN_MAX,
        1 => Just(CHUNK),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || 0..4_usize;
    prop_oneof![
        3 => prop_oneof![position(), 1..5000_usize].prop_map(|len| Step::Allocate { len }),
        1 => (pick(), any::<bool>()).prop_map(|(pick, explicit)| Step::Free { pick, explicit }),
        5 => (pick(), position(), length(), any::<u8>())
            .prop_map(|(pick, at, len, value)| Step::Write { pick, at, len, value }),
        3 => (pick(), position(), length(), any::<u8>())
            .prop_map(|(pick, at, len, value)| Step::Fill { pick, at, len, value }),
        4 => (pick(), position(), pick(), position(), length())
            .prop_map(|(to, at, from, start, len)| Step::Copy { to, at, from, start, len }),
        2 => (pick(), position(), length(), any::<u8>())
            .prop_map(|(pick, at, len, value)| Step::Queue { pick, at, len, value }),
        1 => (0..2 * TOTAL).prop_map(|len| Step::Foreign { len }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // A reset is rare: it empties everything.
    (prop::collection::vec(step(), 1..20), any::<Option<prop::sample::Index>>()).prop_map(
        |(mut steps, reset)| {
            if let Some(at) = reset.filter(|_| steps.len() > 12) {
                let at = at.index(steps.len());
                steps.insert(at, Step::Reset);
            }
            steps
        },
    )
}

/// One live allocation and its expected content.
struct Twin {
    memory: Box<dyn DeviceMemory>,
    known: Vec<bool>,
    bytes: Vec<u8>,
}

impl Twin {
    fn range(&self, at: usize, len: usize) -> Result<DeviceRange, GpuError> {
        let capacity = self.memory.len();
        DeviceRange::checked(DeviceOffset::from_usize(at), ByteLen::from_usize(len), capacity)
            .map_err(|error| GpuError::from_bounds(self.memory.gpu(), error, capacity))
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.known[at..at + bytes.len()].fill(true);
    }

    /// Compares the known bytes of a range with the device's.
    fn agree(&self, at: usize, len: usize) -> Result<(), TestCaseError> {
        let end = (at + len).min(self.bytes.len());
        let at = at.min(end);
        let mut seen = vec![0; end - at];
        self.memory.read(self.range(at, end - at).unwrap(), &mut seen).unwrap();
        let wrong = (at..end).find(|&i| self.known[i] && self.bytes[i] != seen[i - at]);
        prop_assert_eq!(wrong, None, "first wrong byte");
        Ok(())
    }
}

/// Content that depends on the position, so that a shifted copy is detected.
fn content(len: usize, value: u8) -> Vec<u8> {
    (0..len).map(|i| value.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let device = HostDevice::new(GpuIndex::new(3), ByteLen::from_usize(TOTAL)).unwrap();
    let mut twins: Vec<Twin> = Vec::new();
    let mut foreign = 0;
    for step in steps {
        let used: usize = twins.iter().map(|twin| twin.bytes.len()).sum();
        let count = twins.len();
        match step {
            Step::Allocate { len } => match device.allocate(ByteLen::from_usize(len)) {
                Ok(memory) => {
                    prop_assert!(len > 0 && used + len + foreign <= TOTAL);
                    twins.push(Twin { memory, known: vec![false; len], bytes: vec![0; len] });
                }
                Err(GpuError::ZeroLength { .. }) => prop_assert_eq!(len, 0),
                Err(GpuError::OutOfMemory { free, .. }) => {
                    prop_assert!(used + len + foreign > TOTAL);
                    let left = TOTAL.saturating_sub(used).saturating_sub(foreign);
                    prop_assert_eq!(free, Some(ByteLen::from_usize(left)));
                }
                Err(other) => prop_assert!(false, "{other}"),
            },
            Step::Foreign { len } => {
                foreign = len;
                device.set_foreign(ByteLen::from_usize(len));
            }
            Step::Reset => {
                device.reset().unwrap();
                for Twin { memory, .. } in twins.drain(..) {
                    let refused = memory.fill(DeviceRange::whole(memory.len()), 0);
                    prop_assert_eq!(refused, Err(GpuError::StaleAllocation { gpu: memory.gpu() }));
                }
            }
            _ if count == 0 => {}
            Step::Free { pick, explicit } => {
                let Twin { memory, .. } = twins.swap_remove(pick % count);
                if explicit {
                    memory.free().unwrap();
                }
            }
            Step::Write { pick, at, len, value } => {
                let twin = &mut twins[pick % count];
                let bytes = content(len, value);
                if let Ok(range) = twin.range(at, len) {
                    twin.memory.write(range, &bytes).unwrap();
                    twin.set(at, &bytes);
                }
                twin.agree(at.saturating_sub(5), len + 10)?;
            }
            Step::Fill { pick, at, len, value } => {
                let twin = &mut twins[pick % count];
                if let Ok(range) = twin.range(at, len) {
                    twin.memory.fill(range, value).unwrap();
                    twin.set(at, &vec![value; len]);
                }
                twin.agree(at.saturating_sub(5), len + 10)?;
            }
            Step::Queue { pick, at, len, value } => {
                let twin = &mut twins[pick % count];
                let mut staging = device.staging(ByteLen::from_usize(len)).unwrap();
                let bytes = content(len, value);
                staging.as_mut_slice().copy_from_slice(&bytes);
                let fits = twin.range(at, len).is_ok();
                let start = DeviceOffset::from_usize(at);
                let pending = twin.memory.queue_write(start, staging, ByteLen::from_usize(len));
                prop_assert_eq!(pending.wait().1.is_ok(), fits);
                if fits {
                    twin.set(at, &bytes);
                }
                twin.agree(at.saturating_sub(5), len + 10)?;
            }
            Step::Copy { to, at, from, start, len } => {
                let (to, from) = (to % count, from % count);
                let ranges = (twins[to].range(at, len), twins[from].range(start, len));
                if let (Ok(target), Ok(source)) = ranges {
                    let overlap = to == from && len > 0 && start < at + len && at < start + len;
                    let copied = twins[to].memory.copy_from(target, &*twins[from].memory, source);
                    prop_assert_eq!(matches!(copied, Err(GpuError::Overlap { .. })), overlap);
                    prop_assert_eq!(copied.is_ok(), !overlap);
                    if !overlap {
                        let bytes = twins[from].bytes[start..start + len].to_vec();
                        let known = twins[from].known[start..start + len].to_vec();
                        twins[to].bytes[at..at + len].copy_from_slice(&bytes);
                        twins[to].known[at..at + len].copy_from_slice(&known);
                    }
                }
                twins[to].agree(at.saturating_sub(5), len + 10)?;
            }
        }
        let used: usize = twins.iter().map(|twin| twin.bytes.len()).sum();
        prop_assert_eq!(device.allocated(), ByteLen::from_usize(used));
        let free = TOTAL.saturating_sub(used).saturating_sub(foreign);
        prop_assert_eq!(device.memory().unwrap().free, ByteLen::from_usize(free));
    }
    for twin in &twins {
        twin.agree(0, twin.bytes.len())?;
    }
    drop(twins);
    prop_assert_eq!(device.allocated(), ByteLen::ZERO);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Each case moves megabytes, so a quarter of the usual count keeps the usual time.
        cases: (ProptestConfig::default().cases / 4).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_host_device_behaves_like_plain_vectors_and_one_sum(steps in steps()) {
        run(steps)?;
    }
}

proptest! {
    /// Ranges at the limits of every integer type: refused or done, never a panic or a wrap.
    #[test]
    fn any_range_is_either_inside_or_refused(
        offset in prop_oneof![any::<u64>(), 0..200_u64, u64::MAX - 200..=u64::MAX],
        len in prop_oneof![0..200_u64, any::<u64>()],
        capacity in 1..200_u64,
    ) {
        let device = HostDevice::new(GpuIndex::new(0), ByteLen::new(capacity)).unwrap();
        let memory = device.allocate(ByteLen::new(capacity)).unwrap();
        let loose = DeviceRange::checked(
            DeviceOffset::new(offset), ByteLen::new(len), ByteLen::new(u64::MAX));
        let Ok(range) = loose else { return Ok(()) };
        let inside = u128::from(offset) + u128::from(len) <= u128::from(capacity);
        match memory.fill(range, 1) {
            Ok(()) => prop_assert!(inside),
            Err(GpuError::OutOfBounds { offset: at, len: count, capacity: end, .. }) => {
                prop_assert!(!inside);
                prop_assert_eq!((at.get(), count.get(), end.get()), (offset, len, capacity));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    /// Totals and lengths at the limits of every integer type cost no memory and never panic.
    #[test]
    fn any_device_and_any_allocation_is_made_or_refused(
        total in prop_oneof![any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)],
        len in prop_oneof![any::<u64>(), (0..64_u32).prop_map(|bit| 1 << bit)],
    ) {
        let made = HostDevice::new(GpuIndex::new(u32::MAX), ByteLen::new(total));
        prop_assert_eq!(made.is_ok(), total <= HostDevice::MAX_TOTAL.get());
        if let Ok(device) = made {
            let fits = len > 0 && len <= total;
            let allocated = device.allocate(ByteLen::new(len));
            // What fits the device need not fit the address space of a process.
            let too_long = fits && matches!(allocated, Err(GpuError::HostMemory { .. }));
            prop_assert!(!too_long || len > 1 << 46);
            prop_assert_eq!(allocated.is_ok(), fits && !too_long);
            prop_assert_eq!(device.allocated().is_zero(), allocated.is_err());
            if let Ok(memory) = allocated {
                let last = DeviceRange::checked(
                    DeviceOffset::new(len - 1), ByteLen::new(1), memory.len()).unwrap();
                memory.write(last, &[77]).unwrap();
                let mut seen = [0];
                memory.read(last, &mut seen).unwrap();
                prop_assert_eq!(seen, [77]);
            }
        }
    }
}
