//! The whole state of the simulated driver, behind one lock.
//!
//! There is one lock for everything: the simulation must be correct and repeatable, not fast. Host
//! functions and kernels run under it, so they must not call driver functions; the real driver
//! forbids that too.

use core::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::code;
use crate::fault::Faults;
use crate::host::HostBlock;
use crate::kernel::KernelBody;
use crate::memory::{Allocation, Memory, Outside, ordinal_of};
use crate::overhead::Needed;
use crate::ptx::{Image, Kernel};
use crate::queue::{Op, Work};
use crate::report::{Misuse, MisuseKind};
use crate::spec::DeviceSpec;

/// See the module.
pub(crate) struct World {
    pub(crate) initialized: bool,
    /// The code that `cuInit` returns instead of its normal result.
    pub(crate) init_answer: u32,
    pub(crate) devices: Vec<Device>,
    pub(crate) contexts: BTreeMap<u64, Context>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) events: BTreeMap<u64, Event>,
    pub(crate) modules: BTreeMap<u64, Module>,
    pub(crate) functions: BTreeMap<u64, Function>,
    pub(crate) hosts: BTreeMap<usize, HostBlock>,
    pub(crate) kernels: BTreeMap<String, Arc<KernelBody>>,
    /// Images that were loaded last, with their text: decoding one takes longer than a launch.
    pub(crate) images: VecDeque<(String, Arc<Image>)>,
    pub(crate) misuse: Vec<Misuse>,
    last_id: u64,
}

/// A device.
pub(crate) struct Device {
    pub(crate) spec: DeviceSpec,
    pub(crate) foreign: u64,
    pub(crate) memory: Memory,
    pub(crate) primary: u64,
    pub(crate) faults: Faults,
    pub(crate) lost: Vec<Allocation>,
    /// Pairs for which a test set the reachability, regardless of the groups.
    pub(crate) peers: BTreeMap<u32, bool>,
    pub(crate) retired: bool,
    /// Kernels that compute garbage here.
    pub(crate) spoiled: BTreeSet<String>,
    /// Kernels whose blocks have to set their shared memory to zero.
    pub(crate) zero_shared: BTreeSet<String>,
    /// The most instructions of a warp in a block.
    pub(crate) step_limit: u64,
    /// The code that every call to the device answers, as of a card that fell off the bus.
    pub(crate) gone: Option<u32>,
}

/// A context, primary or created.
pub(crate) struct Context {
    pub(crate) device: u32,
    /// Retains of a primary context; 1 for a created one.
    pub(crate) refs: u32,
    /// Usable: created, or retained since the last reset.
    pub(crate) active: bool,
    pub(crate) primary: bool,
    pub(crate) flags: u32,
    pub(crate) poisoned: Option<u32>,
    /// The code of a sticky error that outlasted a reset: the process gets no context again.
    pub(crate) denied: Option<u32>,
    pub(crate) peers: BTreeSet<u64>,
    pub(crate) default_stream: u64,
    pub(crate) limits: BTreeMap<i32, usize>,
    /// What the driver has taken memory for.
    pub(crate) needed: Needed,
    pub(crate) cache_config: i32,
    pub(crate) shared_config: i32,
}

/// A stream: its operations are queued here until a call waits for them.
pub(crate) struct Stream {
    pub(crate) context: u64,
    pub(crate) is_default: bool,
    /// Whether it keeps order with the default stream.
    pub(crate) blocking: bool,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    /// Destroyed; work that was queued before continues.
    pub(crate) destroyed: bool,
    pub(crate) queue: VecDeque<Op>,
    pub(crate) enqueued: u64,
    pub(crate) executed: u64,
    /// An error of queued work that was not returned yet.
    pub(crate) error: Option<u32>,
}

impl Stream {
    /// Destroyed, without queued work.
    pub(crate) const fn is_over(&self) -> bool {
        self.destroyed && self.executed == self.enqueued
    }
}

/// An event, with the position in a stream that it marks.
pub(crate) struct Event {
    pub(crate) context: u64,
    pub(crate) flags: u32,
    pub(crate) mark: Option<(u64, u64)>,
    pub(crate) reached: Option<Instant>,
}

/// A module.
pub(crate) struct Module {
    pub(crate) context: u64,
    pub(crate) image: Arc<Image>,
}

/// A kernel of a module, ready to launch.
pub(crate) struct Function {
    pub(crate) module: u64,
    pub(crate) name: String,
    /// Bytes of each parameter.
    pub(crate) parameters: Vec<usize>,
    /// Its PTX, if that could be decoded.
    pub(crate) kernel: Option<Arc<Kernel>>,
    pub(crate) body: Arc<KernelBody>,
}

static WORLD: Mutex<World> = Mutex::new(World {
    initialized: false,
    init_answer: 0,
    devices: Vec::new(),
    contexts: BTreeMap::new(),
    streams: BTreeMap::new(),
    events: BTreeMap::new(),
    modules: BTreeMap::new(),
    functions: BTreeMap::new(),
    hosts: BTreeMap::new(),
    kernels: BTreeMap::new(),
    images: VecDeque::new(),
    misuse: Vec::new(),
    last_id: 0,
});

thread_local! {
    /// The contexts of this thread, current one last; 0 means "none".
    static CONTEXTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// Whether this thread is inside a host function or kernel, under the lock.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Locks the world. Never called by a thread that holds the lock: see [`in_callback`].
pub(crate) fn lock() -> MutexGuard<'static, World> {
    // A panic under the lock is caught and reported by the call in which it happened.
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this thread runs a host function or a kernel, and therefore holds the lock already.
pub(crate) fn in_callback() -> bool {
    IN_CALLBACK.get()
}

/// Runs user code that must not call the driver.
pub(crate) fn as_callback<R>(body: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            IN_CALLBACK.set(false);
        }
    }
    IN_CALLBACK.set(true);
    let _reset = Reset;
    body()
}

/// Accesses this thread's stack of contexts.
pub(crate) fn thread_contexts<R>(body: impl FnOnce(&mut Vec<u64>) -> R) -> R {
    CONTEXTS.with_borrow_mut(body)
}

impl World {
    pub(crate) const fn fresh_id(&mut self) -> u64 {
        self.last_id = self.last_id.saturating_add(1);
        self.last_id
    }

    pub(crate) fn device(&self, ordinal: u32) -> Option<&Device> {
        self.devices.get(usize::try_from(ordinal).ok()?)
    }

    pub(crate) fn device_mut(&mut self, ordinal: u32) -> Option<&mut Device> {
        self.devices.get_mut(usize::try_from(ordinal).ok()?)
    }

    /// The device that owns an address range, whether or not an allocation lies there.
    pub(crate) fn device_at(&self, address: u64) -> Option<(u32, &Device)> {
        let ordinal = ordinal_of(address)?;
        Some((ordinal, self.device(ordinal)?))
    }

    pub(crate) fn note(
        &mut self,
        kind: MisuseKind,
        device: Option<u32>,
        call: &'static str,
        detail: String,
    ) {
        let misuse = Misuse { kind, device, call, detail };
        crate::environment::tell(&misuse);
        self.misuse.push(misuse);
    }

    /// Bytes of a device that are held neither by allocations nor by contexts nor by other
    /// processes.
    pub(crate) fn room(&self, ordinal: u32) -> u64 {
        let Some(device) = self.device(ordinal) else { return 0 };
        let active = self.contexts.values().filter(|c| c.device == ordinal && c.active);
        let contexts = active.fold(0_u64, |sum, context| {
            let own = context.needed.taken(device.spec.overhead);
            sum.saturating_add(device.spec.context_len).saturating_add(own)
        });
        device
            .spec
            .capacity
            .saturating_sub(device.foreign)
            .saturating_sub(contexts)
            .saturating_sub(device.memory.taken())
    }

    /// Creates a context with its default stream.
    pub(crate) fn create_context(&mut self, device: u32, primary: bool, flags: u32) -> u64 {
        let id = self.fresh_id();
        let default_stream = self.create_stream(id, true, 0, 0);
        let context = Context {
            device,
            refs: u32::from(!primary),
            active: !primary,
            primary,
            flags,
            poisoned: None,
            denied: None,
            peers: BTreeSet::new(),
            default_stream,
            limits: BTreeMap::new(),
            needed: Needed::default(),
            cache_config: 0,
            shared_config: 0,
        };
        self.contexts.insert(id, context);
        id
    }

    pub(crate) fn create_stream(
        &mut self,
        context: u64,
        is_default: bool,
        flags: u32,
        priority: i32,
    ) -> u64 {
        let id = self.fresh_id();
        let stream = Stream {
            context,
            is_default,
            blocking: flags & 1 == 0,
            flags,
            priority,
            destroyed: false,
            queue: VecDeque::new(),
            enqueued: 0,
            executed: 0,
            error: None,
        };
        self.streams.insert(id, stream);
        id
    }

    /// Removes everything of a context. Its allocations count as lost, except in a reset, which
    /// removes them on purpose.
    pub(crate) fn clear_context(&mut self, context: u64, is_reset: bool) {
        if !is_reset {
            self.run_context(context);
        }
        let Some(state) = self.contexts.get_mut(&context) else { return };
        let (device, default_stream) = (state.device, state.default_stream);
        state.poisoned = None;
        state.peers.clear();
        state.limits.clear();
        state.needed = Needed::default();
        self.streams.retain(|id, stream| stream.context != context || *id == default_stream);
        if let Some(stream) = self.streams.get_mut(&default_stream) {
            stream.queue.clear();
            stream.executed = stream.enqueued;
            stream.error = None;
        }
        self.events.retain(|_, event| event.context != context);
        let modules: Vec<u64> =
            self.modules.iter().filter(|(_, m)| m.context == context).map(|(id, _)| *id).collect();
        for module in modules {
            self.unload(module);
        }
        let hosts: Vec<usize> =
            self.hosts.iter().filter(|(_, h)| h.context == context).map(|(a, _)| *a).collect();
        for address in hosts {
            if let Some(block) = self.hosts.remove(&address) {
                block.release(address);
            }
        }
        let mut open_elsewhere = Vec::new();
        let ordinal = device;
        if let Some(device) = self.device_mut(device) {
            let live: Vec<u64> = device
                .memory
                .live()
                .filter(|allocation| allocation.context == context)
                .map(|allocation| allocation.address)
                .collect();
            for address in &live {
                open_elsewhere.extend(device.memory.holders(*address));
            }
            for address in live {
                let freed = device.memory.free(address);
                if !is_reset {
                    device.lost.extend(freed);
                }
            }
        }
        if !open_elsewhere.is_empty() {
            let detail = format!("memory is open in the processes {open_elsewhere:?}");
            self.note(MisuseKind::FreedWhileOpen, Some(ordinal), "the end of a context", detail);
        }
    }

    pub(crate) fn unload(&mut self, module: u64) -> Option<Module> {
        self.functions.retain(|_, function| function.module != module);
        self.modules.remove(&module)
    }

    /// Makes a context return `code` from now on, if that code is sticky.
    pub(crate) fn fail(&mut self, context: u64, code: u32) -> u32 {
        if code::is_sticky(code)
            && let Some(context) = self.contexts.get_mut(&context)
        {
            context.poisoned.get_or_insert(code);
        }
        code
    }

    /// Checks that `len` bytes (not zero) from a device address lie in one live allocation, and
    /// that the context may access it; otherwise logs a misuse and poisons the context.
    pub(crate) fn check_range(
        &mut self,
        context: u64,
        call: &'static str,
        address: u64,
        len: u64,
    ) -> Result<u32, u32> {
        let Some((ordinal, device)) = self.device_at(address) else {
            let detail = format!("{address:#x} is no device address");
            self.note(MisuseKind::UnknownAddress, self.device_of(context), call, detail);
            return Err(code::INVALID_VALUE);
        };
        let (kind, detail) = match device.memory.within(address, len) {
            Ok(_) => return Ok(ordinal),
            Err(Outside::Beyond { inside }) => (
                MisuseKind::OutOfBounds,
                format!(
                    "{len} bytes at {address:#x} run out of an allocation of {} bytes at {:#x}",
                    inside.len, inside.address
                ),
            ),
            Err(Outside::Freed { address: start, len: freed }) => (
                MisuseKind::UseAfterFree,
                format!(
                    "{len} bytes at {address:#x}, where {freed} bytes at {start:#x} were freed"
                ),
            ),
            Err(Outside::Nowhere) => (
                MisuseKind::UnknownAddress,
                format!("{len} bytes at {address:#x}, where nothing was ever allocated"),
            ),
        };
        self.note(kind, Some(ordinal), call, detail);
        Err(self.fail(context, code::ILLEGAL_ADDRESS))
    }

    pub(crate) fn device_of(&self, context: u64) -> Option<u32> {
        self.contexts.get(&context).map(|context| context.device)
    }

    /// Whether one device can read and write another's memory directly.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        let (Some(a), Some(b)) = (self.device(from), self.device(to)) else { return false };
        let by_group = a.spec.peer_group.is_some() && a.spec.peer_group == b.spec.peer_group;
        from != to && a.peers.get(&to).copied().unwrap_or(by_group)
    }

    /// A stream with queued work that uses the range and is not ordered with its free.
    pub(crate) fn queued_use(&self, context: u64, uses: impl Fn(&Work) -> bool) -> bool {
        self.streams.values().any(|stream| {
            stream.context == context
                && !stream.is_default
                && stream.queue.iter().any(|op| uses(&op.work))
        })
    }
}
