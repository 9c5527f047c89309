//! What tests do to the simulator from the outside.

use std::sync::{Arc, MutexGuard};

use crate::fault::{CallKind, Fault, Faults};
use crate::kernel::Launch;
use crate::memory::{Allocation, MOST, Memory, wide};
use crate::report::{LeakReport, Misuse, MisuseKind};
use crate::spec::DeviceSpec;
use crate::world::{self, Device, World};

/// The controls of the simulated driver of this process.
///
/// A process has one driver while `cargo test` runs threads, so everything here is per device, and
/// a test adds devices of its own. Ordinals only ever rise.
///
/// Nothing here may be called from within a kernel or host function.
#[derive(Clone, Copy, Debug)]
pub struct Sim;

/// The faults of one device: what goes wrong with its driver calls, and when.
#[derive(Clone, Copy, Debug)]
pub struct DeviceFaults(u32);

#[expect(
    clippy::panic,
    reason = "a test that names a device it did not add is wrong, and has to hear it"
)]
impl Sim {
    /// Adds a device.
    ///
    /// # Returns
    ///
    /// Its ordinal, as `cuDeviceGet` counts.
    ///
    /// # Panics
    ///
    /// If the specification contradicts itself: see its fields. And after half a million devices.
    #[must_use]
    pub fn add_device(spec: DeviceSpec) -> u32 {
        let added = Self::world().add_device(spec);
        added.unwrap_or_else(|reason| panic!("no such device can be: {reason}"))
    }

    /// Takes a device away and gives back the host memory that it used.
    ///
    /// Its ordinal stays taken; the driver answers 101 (invalid device) for it from now on. For
    /// long suites that add thousands of devices.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn retire_device(device: u32) {
        Self::with(device, |world| {
            let of_device: Vec<u64> = world
                .contexts
                .iter()
                .filter(|(_, context)| context.device == device)
                .map(|(id, _)| *id)
                .collect();
            for context in of_device {
                world.clear_context(context, true);
                world.contexts.remove(&context);
                world.streams.retain(|_, stream| stream.context != context);
            }
            if let Some(state) = world.device_mut(device) {
                state.memory = Memory::new(device, state.spec.granularity, state.spec.seed);
                state.retired = true;
            }
        });
    }

    /// The faults of a device.
    #[must_use]
    pub const fn faults(device: u32) -> DeviceFaults {
        DeviceFaults(device)
    }

    /// Bytes of the device as they are now, whoever they belong to, live, freed or never used.
    ///
    /// Queued work that nobody waited for has not happened yet.
    ///
    /// # Panics
    ///
    /// If there is no such device, or the range is not within its addresses.
    #[must_use]
    pub fn inspect(device: u32, address: u64, len: usize) -> Vec<u8> {
        Self::on_memory(device, address, len, |memory| {
            let mut bytes = vec![0; len];
            memory.read(address, &mut bytes);
            bytes
        })
    }

    /// Overwrites bytes of the device behind the driver's back.
    ///
    /// # Panics
    ///
    /// As [`Self::inspect`].
    pub fn poke(device: u32, address: u64, bytes: &[u8]) {
        Self::on_memory(device, address, bytes.len(), |memory| memory.write(address, bytes));
    }

    /// Flips one bit of the device's memory, counted from an address, as a cosmic ray would.
    ///
    /// # Panics
    ///
    /// As [`Self::inspect`].
    pub fn flip_bit(device: u32, address: u64, bit: u64) {
        let address = address.saturating_add(bit / 8);
        Self::on_memory(device, address, 1, |memory| {
            let mut byte = [0];
            memory.read(address, &mut byte);
            memory.write(address, &byte.map(|byte| byte ^ (1 << (bit % 8))));
        });
    }

    /// Sets how many bytes of a device other processes hold.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn set_foreign(device: u32, len: u64) {
        Self::with_device(device, |state| state.foreign = len);
    }

    /// Declares whether `from` reaches `to`'s memory, whatever their groups say. One direction
    /// only.
    ///
    /// # Panics
    ///
    /// If there is no device `from`.
    pub fn set_peer(from: u32, to: u32, reachable: bool) {
        Self::with_device(from, |state| {
            state.peers.insert(to, reachable);
        });
    }

    /// Bytes that live allocations take, rounded as the driver rounds: its own count.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn used(device: u32) -> u64 {
        Self::with_device(device, |state| state.memory.taken())
    }

    /// The live allocations of a device, by address.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn live_allocations(device: u32) -> Vec<Allocation> {
        Self::with_device(device, |state| state.memory.live().copied().collect())
    }

    /// The code that poisons the device's primary context, if one does.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn poisoned_by(device: u32) -> Option<u32> {
        Self::with(device, |world| {
            let primary = world.device(device)?.primary;
            world.contexts.get(&primary)?.poisoned
        })
    }

    /// The bytes of every block of page-locked host memory of a device, as they are now.
    ///
    /// No other thread may be writing to such a block meanwhile, the program's own included.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn inspect_pinned(device: u32) -> Vec<Vec<u8>> {
        Self::with(device, |world| {
            let of_device = |context: u64| world.device_of(context) == Some(device);
            let blocks = world.hosts.iter().filter(|(_, block)| of_device(block.context));
            blocks
                .map(|(&address, block)| {
                    let mut bytes = vec![0; block.len];
                    let start = core::ptr::with_exposed_provenance::<u8>(address);
                    // SAFETY: the program gave the driver this memory to read at any time until it
                    // is unregistered, and said nobody is writing to it now; `bytes` is fresh and
                    // as long.
                    unsafe {
                        core::ptr::copy_nonoverlapping(start, bytes.as_mut_ptr(), block.len);
                    }
                    bytes
                })
                .collect()
        })
    }

    /// What is left on a device.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    #[must_use]
    pub fn leak_report(device: u32) -> LeakReport {
        Self::with(device, |world| world.leak_report(device))
    }

    /// Everything that a real driver would not have forgiven so far, oldest first.
    #[must_use]
    pub fn misuse() -> Vec<Misuse> {
        Self::world().misuse.clone()
    }

    /// That part of it that concerns one device.
    #[must_use]
    pub fn misuse_of(device: u32) -> Vec<Misuse> {
        let mut log = Self::misuse();
        log.retain(|misuse| misuse.device == Some(device));
        log
    }

    /// Takes a device's entries out of the misuse log: for tests that provoke them.
    #[must_use = "the entries are gone from the log"]
    pub fn take_misuse(device: u32) -> Vec<Misuse> {
        let mut world = Self::world();
        let log = core::mem::take(&mut world.misuse);
        let (of_device, rest) = log.into_iter().partition(|entry| entry.device == Some(device));
        world.misuse = rest;
        of_device
    }

    /// Checks that a device was used well and left empty.
    ///
    /// # Panics
    ///
    /// If anything is left on the device or its misuse log has an entry; the message lists all.
    #[track_caller]
    pub fn assert_clean(device: u32) {
        let leaks = Self::leak_report(device);
        let misuse = Self::misuse_of(device);
        if leaks.is_empty() && misuse.is_empty() {
            return;
        }
        let misuse: Vec<String> = misuse.iter().map(|entry| format!("{entry}\n")).collect();
        panic!("device {device} is not clean\n{leaks}\n{}", misuse.concat());
    }

    /// Gives a kernel its body, under the name that images declare it by. The same name again
    /// replaces the body for functions that are looked up later.
    pub fn register_kernel<F>(name: &str, body: F)
    where
        F: Fn(&mut Launch<'_>) -> Result<(), u32> + Send + Sync + 'static,
    {
        Self::world().kernels.insert(name.to_owned(), Arc::new(body));
    }

    /// Makes `cuInit` answer a code, or what it would answer by itself if that is 0. It concerns
    /// the whole process: for child processes only.
    pub fn set_init_answer(code: u32) {
        Self::world().init_answer = code;
    }

    fn world() -> MutexGuard<'static, World> {
        assert!(!world::in_callback(), "the simulator is asked from within a kernel");
        let mut world = world::lock();
        for call in crate::functions::take_calls_from_callbacks() {
            let detail = "called from within a kernel or host function".to_owned();
            world.note(MisuseKind::CallFromCallback, None, call, detail);
        }
        world
    }

    fn with<R>(device: u32, body: impl FnOnce(&mut World) -> R) -> R {
        let mut world = Self::world();
        assert!(world.device(device).is_some(), "there is no simulated device {device}");
        body(&mut world)
    }

    fn with_device<R>(device: u32, body: impl FnOnce(&mut Device) -> R) -> R {
        let mut world = Self::world();
        world
            .device_mut(device)
            .map_or_else(|| panic!("there is no simulated device {device}"), body)
    }

    fn on_memory<R>(
        device: u32,
        address: u64,
        len: usize,
        body: impl FnOnce(&mut Memory) -> R,
    ) -> R {
        Self::with_device(device, |state| {
            assert!(
                state.memory.addresses().contains(&address)
                    && wide(len) <= state.memory.addresses().end.saturating_sub(address),
                "{len} bytes at {address:#x} are not addresses of device {device}"
            );
            body(&mut state.memory)
        })
    }
}

impl DeviceFaults {
    /// Lets the n-th call of a kind from now on (1 is the next) meet a fault.
    pub fn nth(self, kind: CallKind, n: u64, fault: Fault) {
        self.repeat(kind, n, 1, fault);
    }

    /// Lets the next call of a kind meet a fault.
    pub fn next(self, kind: CallKind, fault: Fault) {
        self.nth(kind, 1, fault);
    }

    /// Lets `times` calls of a kind, beginning with the n-th from now on, meet a fault.
    pub fn repeat(self, kind: CallKind, n: u64, times: u64, fault: Fault) {
        self.with(|faults| faults.schedule(kind, n.saturating_sub(1), times, fault));
    }

    /// Lets every call of a kind meet a fault until [`Self::clear`].
    pub fn always(self, kind: CallKind, fault: Fault) {
        self.repeat(kind, 1, u64::MAX, fault);
    }

    /// Lets about `rate` of 65 536 calls meet one of these faults, chosen by a seed.
    ///
    /// The same seed and the same sequence of calls on the device give the same faults.
    pub fn seeded(self, seed: u64, rate: u16, choices: Vec<(CallKind, Fault)>) {
        self.with(|faults| faults.seed(seed, rate, choices));
    }

    /// Ends all faults. What they did stays done.
    pub fn clear(self) {
        self.with(Faults::clear);
    }

    /// How many calls of a kind the device has seen, failed ones included.
    #[must_use]
    pub fn calls(self, kind: CallKind) -> u64 {
        self.with(|faults| faults.count(kind))
    }

    /// How many calls in the device's context there were, whatever their kind, and refused ones
    /// too: for tests that nothing more is sent to a lost device.
    ///
    /// Not among them: binding a context, asking which one is bound, retain, release and reset.
    #[must_use]
    pub fn all_calls(self) -> u64 {
        self.with(|faults| faults.total())
    }

    fn with<R>(self, body: impl FnOnce(&mut Faults) -> R) -> R {
        Sim::with_device(self.0, |device| body(&mut device.faults))
    }
}

impl World {
    pub(crate) fn add_device(&mut self, spec: DeviceSpec) -> Result<u32, String> {
        spec.check()?;
        let ordinal = u32::try_from(self.devices.len()).unwrap_or(MOST);
        if ordinal >= MOST {
            return Err(format!("there are {MOST} devices already"));
        }
        let primary = self.create_context(ordinal, true, 0);
        self.devices.push(Device {
            foreign: spec.foreign,
            memory: Memory::new(ordinal, spec.granularity, spec.seed),
            primary,
            faults: Faults::new(),
            lost: Vec::new(),
            peers: std::collections::BTreeMap::new(),
            retired: false,
            spec,
        });
        Ok(ordinal)
    }

    fn leak_report(&self, device: u32) -> LeakReport {
        let of_device = |context: u64| self.device_of(context) == Some(device);
        let streams = || self.streams.values().filter(|stream| of_device(stream.context));
        let state = self.device(device);
        LeakReport {
            allocations: state.map_or_else(Vec::new, |d| d.memory.live().copied().collect()),
            lost_with_context: state.map_or_else(Vec::new, |d| d.lost.clone()),
            pinned: self
                .hosts
                .iter()
                .filter(|(_, block)| of_device(block.context))
                .map(|(address, block)| (*address, block.len))
                .collect(),
            streams: streams().filter(|stream| !stream.is_default && !stream.destroyed).count(),
            events: self.events.values().filter(|event| of_device(event.context)).count(),
            modules: self.modules.values().filter(|module| of_device(module.context)).count(),
            contexts: self
                .contexts
                .values()
                .filter(|context| context.device == device)
                .fold(0, |sum, context| sum.saturating_add(context.refs)),
            queued: streams().map(|stream| stream.queue.len()).sum(),
        }
    }
}
