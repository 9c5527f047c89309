//! The controls of the simulator for tests.

use std::sync::{Arc, MutexGuard};

use crate::fault::{CallKind, Fault, Faults};
use crate::kernel::Launch;
use crate::memory::{Allocation, MOST, Memory, wide};
use crate::report::{LeakReport, Misuse, MisuseKind};
use crate::spec::DeviceSpec;
use crate::world::{self, Device, World};

/// The controls of the simulated driver of this process.
///
/// A process has one driver while `cargo test` runs several threads, so all controls are per
/// device, and a test adds devices of its own. Ordinals only ever rise.
///
/// Kernels and host functions must not call any of these.
#[derive(Clone, Copy, Debug)]
pub struct Sim;

/// The faults of one device: which of its driver calls fail, and how.
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
    /// If the specification contradicts itself (see its fields), and after half a million devices.
    #[must_use]
    pub fn add_device(spec: DeviceSpec) -> u32 {
        let added = Self::world().add_device(spec);
        added.unwrap_or_else(|reason| panic!("no such device can be: {reason}"))
    }

    /// Removes a device and frees the host memory that it used.
    ///
    /// Its ordinal is not reused; from now on the driver returns 101 (invalid device) for it. For
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

    /// The present bytes of the device, regardless of their owner: live, freed or never used.
    ///
    /// Queued work has not run before a call has waited for it.
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

    /// Overwrites bytes of the device without a driver call.
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

    /// Makes every call to the device answer a code and do nothing, as a card that fell off the bus
    /// does (999, mostly); `None` ends that.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn set_gone(device: u32, code: Option<u32>) {
        Self::with_device(device, |state| state.gone = code);
    }

    /// Sets whether `from` reaches `to`'s memory, regardless of their groups. One direction only.
    ///
    /// # Panics
    ///
    /// If there is no device `from`.
    pub fn set_peer(from: u32, to: u32, reachable: bool) {
        Self::with_device(from, |state| {
            state.peers.insert(to, reachable);
        });
    }

    /// Bytes that live allocations occupy, rounded as in the driver: its own count.
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

    /// The present bytes of every block of page-locked host memory of a device.
    ///
    /// No other thread may write to such a block meanwhile, including threads of the tested
    /// program.
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
                    // SAFETY: the program allowed the driver to read this memory at any time until
                    // it is unregistered, and the caller guarantees that no thread writes to it
                    // now; `bytes` is fresh and as long.
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

    /// The misuse log so far, oldest first: errors that a real driver would not tolerate.
    #[must_use]
    pub fn misuse() -> Vec<Misuse> {
        Self::world().misuse.clone()
    }

    /// The entries of the misuse log for one device.
    #[must_use]
    pub fn misuse_of(device: u32) -> Vec<Misuse> {
        let mut log = Self::misuse();
        log.retain(|misuse| misuse.device == Some(device));
        log
    }

    /// Removes a device's entries from the misuse log: for tests that provoke them.
    #[must_use = "the entries are gone from the log"]
    pub fn take_misuse(device: u32) -> Vec<Misuse> {
        let mut world = Self::world();
        let log = core::mem::take(&mut world.misuse);
        let (of_device, rest) = log.into_iter().partition(|entry| entry.device == Some(device));
        world.misuse = rest;
        of_device
    }

    /// Checks that a device was not misused and is empty.
    ///
    /// # Panics
    ///
    /// If anything is left on the device or its misuse log has an entry; the message lists
    /// everything.
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

    /// Sets the body of a kernel, under the name in the images, in place of its PTX. A later call with the same name
    /// replaces the body for functions that are looked up later.
    pub fn register_kernel<F>(name: &str, body: F)
    where
        F: Fn(&mut Launch<'_>) -> Result<(), u32> + Send + Sync + 'static,
    {
        Self::world().kernels.insert(name.to_owned(), Arc::new(body));
    }

    /// Makes a kernel compute garbage on a device: every byte that it stores is another one than its
    /// PTX says. Bodies that were registered are as they are.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn spoil_kernel(device: u32, name: &str) {
        Self::with_device(device, |state| {
            state.spoiled.insert(name.to_owned());
        });
    }

    /// Ends [`Self::spoil_kernel`].
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn mend_kernel(device: u32, name: &str) {
        Self::with_device(device, |state| {
            state.spoiled.remove(name);
        });
    }

    /// Requires of a kernel that every byte of its shared variables is zero when a block ends.
    ///
    /// What a block leaves there stays on a card until another block overwrites it. A block that leaves
    /// something ends the launch (719) with a [`MisuseKind::SharedLeft`]. Bodies that were registered
    /// have no shared memory.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn require_zero_shared(device: u32, kernel: &str) {
        Self::with_device(device, |state| {
            state.zero_shared.insert(kernel.to_owned());
        });
    }

    /// Sets how many instructions a warp may run in a block before its kernel counts as endless
    /// (702). It is 2^26 at first, which takes about a second.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn set_step_limit(device: u32, steps: u64) {
        Self::with_device(device, |state| state.step_limit = steps);
    }

    /// Makes `cuInit` return a code; 0 restores its normal result. It affects the whole process:
    /// only for child processes.
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
    /// Applies a fault to the n-th call of a kind from now on (1 is the next).
    pub fn nth(self, kind: CallKind, n: u64, fault: Fault) {
        self.repeat(kind, n, 1, fault);
    }

    /// Applies a fault to the next call of a kind.
    pub fn next(self, kind: CallKind, fault: Fault) {
        self.nth(kind, 1, fault);
    }

    /// Applies a fault to `times` calls of a kind, beginning with the n-th from now on.
    pub fn repeat(self, kind: CallKind, n: u64, times: u64, fault: Fault) {
        self.with(|faults| faults.schedule(kind, n.saturating_sub(1), times, fault));
    }

    /// Applies a fault to every call of a kind until [`Self::clear`].
    pub fn always(self, kind: CallKind, fault: Fault) {
        self.repeat(kind, 1, u64::MAX, fault);
    }

    /// Applies one of these faults, chosen by a seed, to about `rate` of 65 536 calls.
    ///
    /// The same seed and the same sequence of calls on the device give the same faults.
    pub fn seeded(self, seed: u64, rate: u16, choices: Vec<(CallKind, Fault)>) {
        self.with(|faults| faults.seed(seed, rate, choices));
    }

    /// Removes all rules. Damage that was done remains.
    pub fn clear(self) {
        self.with(Faults::clear);
    }

    /// How many calls of a kind the device has received, including failed ones.
    #[must_use]
    pub fn calls(self, kind: CallKind) -> u64 {
        self.with(|faults| faults.count(kind))
    }

    /// How many calls in the device's context there were, of any kind and including refused ones:
    /// for tests that no call is sent to a lost device.
    ///
    /// Not counted: binding a context, reading which one is bound, retain, release and reset.
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
            spoiled: std::collections::BTreeSet::new(),
            zero_shared: std::collections::BTreeSet::new(),
            step_limit: crate::ptx::MOST_STEPS,
            gone: None,
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
