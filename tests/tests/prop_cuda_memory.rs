//! Property: under any faults of the driver, a CUDA device never returns wrong bytes as correct,
//! loses no byte of its counts, and leaves nothing behind.
//!
//! Method: random sequences of allocations, frees, writes, fills, copies within and between two
//! devices, queued copies and resets run against a plain picture of the content of every
//! allocation. Meanwhile the simulated driver fails calls by a seed: at once, later, or with a
//! sticky error. A call that fails leaves its target unknown; the result of one that succeeds is
//! compared byte by byte, inspected behind the driver. A lost device refuses every call without a
//! driver call until it is reset. At the end both devices are empty and the driver has logged no
//! misuse.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the reference is plain arithmetic on small numbers, and a test may panic"
)]

#[macro_use]
extern crate vram_testkit;

use std::sync::Arc;

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use proptest::prelude::*;
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange, GpuIndex};
use vram_gpu::{CudaDevice, Device, DeviceMemory, GpuError, Sharing, codes};

/// One window of the copies and a bit more, so that some copies take two turns.
const LEN: usize = (1 << 20) + 300;

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { device: usize },
    Free { pick: usize, explicit: bool },
    Write { pick: usize, at: usize, len: usize, value: u8, queued: bool },
    Fill { pick: usize, at: usize, len: usize, value: u8 },
    Copy { to: usize, from: usize, at: usize, start: usize, len: usize },
    Read { pick: usize, at: usize, len: usize, queued: bool },
    Reset { device: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let pick = || 0..4_usize;
    let at = || prop_oneof![0..LEN, 0..64_usize, (1 << 20) - 8..(1 << 20) + 8_usize];
    let len = || prop_oneof![0..LEN, 0..64_usize];
    prop_oneof![
        3 => (0..2_usize).prop_map(|device| Step::Allocate { device }),
        1 => (pick(), any::<bool>()).prop_map(|(pick, explicit)| Step::Free { pick, explicit }),
        4 => (pick(), at(), len(), any::<u8>(), any::<bool>())
            .prop_map(|(pick, at, len, value, queued)| Step::Write { pick, at, len, value, queued }),
        2 => (pick(), at(), len(), any::<u8>())
            .prop_map(|(pick, at, len, value)| Step::Fill { pick, at, len, value }),
        3 => (pick(), pick(), at(), at(), len())
            .prop_map(|(to, from, at, start, len)| Step::Copy { to, from, at, start, len }),
        3 => (pick(), at(), len(), any::<bool>())
            .prop_map(|(pick, at, len, queued)| Step::Read { pick, at, len, queued }),
        1 => (0..2_usize).prop_map(|device| Step::Reset { device }),
    ]
}

/// A live allocation and its known bytes.
struct Twin {
    device: usize,
    memory: Box<dyn DeviceMemory>,
    bytes: Vec<Option<u8>>,
}

struct World {
    ordinals: [u32; 2],
    devices: [Arc<CudaDevice>; 2],
    twins: Vec<Twin>,
}

fn range(at: usize, len: usize) -> Option<DeviceRange> {
    let (at, len) = (DeviceOffset::from_usize(at), ByteLen::from_usize(len));
    DeviceRange::checked(at, len, ByteLen::from_usize(LEN)).ok()
}

fn content(len: usize, value: u8) -> Vec<u8> {
    (0..len).map(|i| value.wrapping_add(u8::try_from(i % 251).unwrap())).collect()
}

impl World {
    fn new(seed: u64, rate: u16) -> Self {
        cuda_sim::install();
        let spec = || DeviceSpec { capacity: 16 << 20, ..DeviceSpec::default() };
        let ordinals = [Sim::add_device(spec()), Sim::add_device(spec())];
        let open = |i: u32, ordinal| {
            CudaDevice::open(ordinal, GpuIndex::new(i)).unwrap().shared(Sharing::Alone)
        };
        let devices = [open(0, ordinals[0]), open(1, ordinals[1])];
        let kinds = [
            CallKind::Alloc,
            CallKind::Free,
            CallKind::CopyIn,
            CallKind::CopyOut,
            CallKind::CopyWithin,
            CallKind::CopyPeer,
            CallKind::Fill,
            CallKind::Synchronize,
            CallKind::Order,
            CallKind::StreamOrEvent,
            CallKind::Pin,
            CallKind::Pointer,
        ];
        let faults = [
            Fault::Fail(999),
            Fault::FailLater(999),
            Fault::Fail(46),
            Fault::Fail(codes::OUT_OF_MEMORY),
            Fault::FailLater(codes::ECC_UNCORRECTABLE),
            Fault::Fail(codes::ILLEGAL_ADDRESS),
        ];
        let choices: Vec<_> =
            kinds.iter().flat_map(|&kind| faults.map(|fault| (kind, fault))).collect();
        for (own, &ordinal) in (1..).zip(&ordinals) {
            Sim::faults(ordinal).seeded(seed ^ own, rate, choices.clone());
        }
        Self { ordinals, devices, twins: Vec::new() }
    }

    /// Applies a result to the picture: done, or unknown.
    fn settle(
        &mut self,
        to: usize,
        at: usize,
        new: &[Option<u8>],
        outcome: Result<(), GpuError>,
    ) -> Result<(), TestCaseError> {
        let twin = &mut self.twins[to];
        let target = &mut twin.bytes[at..at + new.len()];
        match outcome {
            Ok(()) => target.copy_from_slice(new),
            Err(error) => {
                prop_assert!(
                    matches!(error, GpuError::Driver { .. } | GpuError::Lost { .. }),
                    "{error}"
                );
                target.fill(None);
            }
        }
        Ok(())
    }

    /// Compares all known bytes with the device's bytes, inspected behind the driver.
    fn agree(&self, pick: usize) -> Result<(), TestCaseError> {
        let Twin { device, memory, bytes } = &self.twins[pick];
        if !self.devices[*device].state().is_ready() {
            return Ok(());
        }
        let seen = Sim::inspect(self.ordinals[*device], memory.address().get(), LEN);
        let wrong = (0..LEN).find(|&i| bytes[i].is_some_and(|byte| byte != seen[i]));
        prop_assert_eq!(wrong, None, "first wrong byte of an allocation on device {}", device);
        Ok(())
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let count = self.twins.len();
        match step {
            Step::Allocate { device } => {
                match self.devices[device].allocate(ByteLen::from_usize(LEN)) {
                    Ok(memory) => {
                        self.twins.push(Twin { device, memory, bytes: vec![None; LEN] });
                    }
                    Err(error) => prop_assert!(!error.is_caller_error(), "{error}"),
                }
            }
            Step::Reset { device } => {
                self.devices[device].reset().unwrap();
                let (stale, kept) = self.twins.drain(..).partition(|twin| twin.device == device);
                self.twins = kept;
                let stale: Vec<Twin> = stale;
                for Twin { memory, .. } in stale {
                    let refused = memory.fill(DeviceRange::whole(memory.len()), 0);
                    prop_assert_eq!(refused, Err(GpuError::StaleAllocation { gpu: memory.gpu() }));
                }
            }
            _ if count == 0 => {}
            Step::Free { pick, explicit } => {
                let Twin { device, memory, bytes } = self.twins.swap_remove(pick % count);
                if explicit {
                    if let Err(refused) = memory.free() {
                        self.twins.push(Twin { device, memory: refused.memory, bytes });
                    }
                } else {
                    drop(memory);
                }
            }
            Step::Write { pick, at, len, value, queued } => {
                let pick = pick % count;
                let Some(range) = range(at, len) else { return Ok(()) };
                let Twin { device, memory, .. } = &self.twins[pick];
                let bytes = content(len, value);
                let outcome = if queued {
                    match self.devices[*device].staging(ByteLen::from_usize(len)) {
                        Ok(mut staging) => {
                            staging.as_mut_slice().copy_from_slice(&bytes);
                            memory.queue_write(range.start(), staging, range.len()).wait().1
                        }
                        Err(error) => Err(error),
                    }
                } else {
                    memory.write(range, &bytes)
                };
                let new: Vec<_> = bytes.into_iter().map(Some).collect();
                self.settle(pick, at, &new, outcome)?;
                self.agree(pick)?;
            }
            Step::Fill { pick, at, len, value } => {
                let pick = pick % count;
                let Some(range) = range(at, len) else { return Ok(()) };
                let outcome = self.twins[pick].memory.fill(range, value);
                self.settle(pick, at, &vec![Some(value); len], outcome)?;
                self.agree(pick)?;
            }
            Step::Copy { to, from, at, start, len } => {
                let (to, from) = (to % count, from % count);
                let (Some(target), Some(source)) = (range(at, len), range(start, len)) else {
                    return Ok(());
                };
                let copied =
                    self.twins[to].memory.copy_from(target, &*self.twins[from].memory, source);
                let overlap = to == from && len > 0 && start < at + len && at < start + len;
                if overlap {
                    prop_assert!(copied.is_err());
                    return Ok(());
                }
                // If the link was refused, callers copy through the host.
                if matches!(copied, Err(GpuError::PeerUnsupported { .. })) {
                    return Ok(());
                }
                let new = self.twins[from].bytes[start..start + len].to_vec();
                self.settle(to, at, &new, copied)?;
                self.agree(to)?;
                self.agree(from)?;
            }
            Step::Read { pick, at, len, queued } => self.read(pick % count, at, len, queued)?,
        }
        for device in 0..2 {
            let live = self.twins.iter().filter(|twin| twin.device == device).count();
            let counted = Sim::live_allocations(self.ordinals[device]).len();
            // A failed implicit free stays counted by the driver: its count is never below the
            // known sum.
            prop_assert!(!self.devices[device].state().is_ready() || counted >= live);
        }
        Ok(())
    }

    /// Reads and compares with the known bytes, if the read succeeds.
    fn read(&self, pick: usize, at: usize, len: usize, queued: bool) -> Result<(), TestCaseError> {
        let Some(range) = range(at, len) else { return Ok(()) };
        let Twin { device, memory, bytes } = &self.twins[pick];
        let mut seen = vec![0; len];
        let outcome = if queued {
            self.devices[*device].staging(ByteLen::from_usize(len)).and_then(|staging| {
                let (staging, outcome) = memory.queue_read(range, staging).wait();
                outcome.map(|()| seen.copy_from_slice(staging.as_slice()))
            })
        } else {
            memory.read(range, &mut seen)
        };
        if outcome.is_ok() {
            let known = &bytes[at..at + len];
            let wrong = (0..len).find(|&i| known[i].is_some_and(|byte| byte != seen[i]));
            prop_assert_eq!(wrong, None, "first byte read wrong");
        }
        Ok(())
    }

    /// Checks that everything works again without faults, and that nothing is left.
    fn finish(self) {
        let Self { ordinals, devices, twins } = self;
        for &ordinal in &ordinals {
            Sim::faults(ordinal).clear();
        }
        drop(twins);
        for device in &devices {
            device.reset().unwrap();
            let memory = device.allocate(ByteLen::from_usize(LEN)).unwrap();
            memory.write(DeviceRange::whole(memory.len()), &content(LEN, 1)).unwrap();
            let mut seen = vec![0; LEN];
            memory.read(DeviceRange::whole(memory.len()), &mut seen).unwrap();
            assert!(seen == content(LEN, 1));
        }
        drop(devices);
        for ordinal in ordinals {
            Sim::assert_clean(ordinal);
            Sim::retire_device(ordinal);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Each case moves megabytes between two devices, so a quarter of the usual count is run.
        cases: (ProptestConfig::default().cases / 4).max(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_driver_fault_makes_wrong_bytes_look_right(
        seed in any::<u64>(),
        rate in prop_oneof![Just(0_u16), 500..6000_u16],
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut world = World::new(seed, rate);
        for step in steps {
            world.run(step)?;
        }
        world.finish();
    }
}
