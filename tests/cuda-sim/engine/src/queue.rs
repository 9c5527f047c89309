//! Queued work: nothing runs until a call waits for it.
//!
//! A real device works on its own, so a program that forgets to wait is correct most of the time.
//! Here it fails every time: a queued operation runs when a call waits for its stream, its event or
//! its context, or step by step at queries, and not before. A copy also reads its pinned source
//! that late.

use core::ptr;
use std::sync::Arc;
use std::time::Instant;

use crate::code;
use crate::fault::Fault;
use crate::kernel::{KernelBody, Launch};
use crate::memory::{ordinal_of, wide};
use crate::ptx::Damage;
use crate::report::MisuseKind;
use crate::shape::LaunchShape;
use crate::world::{Stream, World, as_callback};

/// Copies use a buffer of this size, so that host and device memory are never borrowed at once.
const STEP: usize = 1 << 20;

/// One end of a copy.
#[derive(Debug)]
pub(crate) enum Place {
    /// A device address.
    Device(u64),
    /// A host address, read or written when the copy runs.
    Host(usize),
    /// Bytes that were copied from pageable memory when the copy was queued.
    Taken(Vec<u8>),
}

/// The work of an operation.
pub(crate) enum Work {
    Copy {
        source: Place,
        target: Place,
        len: u64,
    },
    Fill {
        address: u64,
        len: u64,
        pattern: Vec<u8>,
    },
    Launch {
        name: String,
        body: Arc<KernelBody>,
        shape: LaunchShape,
        parameters: Vec<Vec<u8>>,
    },
    Free {
        address: u64,
    },
    HostCall {
        function: unsafe extern "C" fn(*mut core::ffi::c_void),
        data: usize,
    },
    /// Marks an event as reached.
    Record {
        event: u64,
    },
    /// Waits for another stream to have executed this many operations.
    WaitFor {
        stream: u64,
        executed: u64,
    },
    /// No work: in place of an operation that fails.
    Nothing,
}

/// An operation in a stream.
pub(crate) struct Op {
    pub(crate) work: Work,
    /// `FailLater`, `FlipBit`, `StopAfter` or `Drop`.
    pub(crate) fault: Option<Fault>,
    pub(crate) call: &'static str,
}

impl Work {
    /// Whether it uses memory within `len` bytes from a device address.
    pub(crate) fn uses_device(&self, address: u64, len: u64) -> bool {
        let overlaps = |start: u64, used: u64| {
            start < address.saturating_add(len) && address < start.saturating_add(used)
        };
        match self {
            Self::Copy { source, target, len: used } => [source, target]
                .into_iter()
                .any(|place| matches!(place, Place::Device(start) if overlaps(*start, *used))),
            Self::Fill { address: start, len: used, .. } => overlaps(*start, *used),
            Self::Launch { parameters, .. } => parameters.iter().any(|parameter| {
                <[u8; 8]>::try_from(parameter.as_slice())
                    .is_ok_and(|bytes| overlaps(u64::from_le_bytes(bytes), 1))
            }),
            _ => false,
        }
    }

    /// Whether it reads or writes host memory within `len` bytes from an address.
    pub(crate) fn uses_host(&self, address: usize, len: usize) -> bool {
        let Self::Copy { source, target, len: used } = self else { return false };
        [source, target].into_iter().any(|place| match place {
            Place::Host(start) => {
                wide(*start) < wide(address).saturating_add(wide(len))
                    && wide(address) < wide(*start).saturating_add(*used)
            }
            _ => false,
        })
    }
}

impl World {
    /// Adds an operation to the end of a stream, in order with the default stream if the stream
    /// keeps that order.
    pub(crate) fn enqueue(&mut self, stream: u64, op: Op) {
        let Some(state) = self.streams.get(&stream) else { return };
        let context = state.context;
        let before: Vec<(u64, u64)> = self
            .streams
            .iter()
            .filter(|(id, other)| {
                **id != stream
                    && other.context == context
                    && other.executed < other.enqueued
                    && ((state.is_default && other.blocking)
                        || (state.blocking && other.is_default))
            })
            .map(|(id, other)| (*id, other.enqueued))
            .collect();
        let call = op.call;
        let waits = before.into_iter().map(|(stream, executed)| Op {
            work: Work::WaitFor { stream, executed },
            fault: None,
            call,
        });
        if let Some(state) = self.streams.get_mut(&stream) {
            for op in waits.chain([op]) {
                state.queue.push_back(op);
                state.enqueued = state.enqueued.saturating_add(1);
            }
        }
    }

    /// Runs a stream, and every stream it waits for, until it has executed `upto` operations.
    pub(crate) fn run(&mut self, stream: u64, upto: u64) {
        // An explicit stack: recursion over streams that wait for each other would be unbounded.
        let mut goals = vec![(stream, upto)];
        while let Some((stream, upto)) = goals.last().copied() {
            let Some(state) = self.streams.get(&stream).filter(|state| state.executed < upto)
            else {
                goals.pop();
                continue;
            };
            match state.queue.front().map(|op| &op.work) {
                Some(Work::WaitFor { stream: other, executed })
                    if self.streams.get(other).is_some_and(|other| other.executed < *executed) =>
                {
                    goals.push((*other, *executed));
                }
                _ => {
                    self.step(stream);
                    // A destroyed stream is removed when its work is done.
                    if self.streams.get(&stream).is_some_and(Stream::is_over) {
                        self.streams.remove(&stream);
                    }
                }
            }
        }
    }

    /// Runs everything that is queued on a stream.
    pub(crate) fn run_stream(&mut self, stream: u64) {
        if let Some(upto) = self.streams.get(&stream).map(|stream| stream.enqueued) {
            self.run(stream, upto);
        }
    }

    /// Runs everything that is queued in a context.
    pub(crate) fn run_context(&mut self, context: u64) {
        let streams: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.context == context)
            .map(|(id, _)| *id)
            .collect();
        for stream in streams {
            self.run_stream(stream);
        }
    }

    /// Runs the first operation of a stream.
    fn step(&mut self, stream: u64) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        state.executed = state.executed.saturating_add(1);
        let context = state.context;
        let Some(op) = state.queue.pop_front() else { return };
        if self.contexts.get(&context).is_some_and(|context| context.poisoned.is_some()) {
            return;
        }
        let outcome = match op.fault {
            Some(Fault::FailLater(code)) => Err(code),
            fault => self.execute(context, op.work, fault, op.call),
        };
        if let Err(code) = outcome {
            self.fail(context, code);
            if let Some(state) = self.streams.get_mut(&stream) {
                state.error.get_or_insert(code);
            }
        }
    }

    fn execute(
        &mut self,
        context: u64,
        work: Work,
        fault: Option<Fault>,
        call: &'static str,
    ) -> Result<(), u32> {
        match work {
            Work::Copy { source, target, len } => {
                for place in [&source, &target] {
                    if let Place::Device(address) = place {
                        self.check_range(context, call, *address, len)?;
                    }
                }
                self.copy(&source, &target, reach(len, fault), flip(len, fault));
                Ok(())
            }
            Work::Fill { address, len, pattern } => {
                let ordinal = self.check_range(context, call, address, len)?;
                if let Some(device) = self.device_mut(ordinal) {
                    device.memory.fill(address, reach(len, fault), &pattern);
                    if let Some((at, mask)) = flip(len, fault) {
                        let mut byte = [0];
                        let address = address.saturating_add(at);
                        device.memory.read(address, &mut byte);
                        device.memory.write(address, &byte.map(|byte| byte ^ mask));
                    }
                }
                Ok(())
            }
            Work::Launch { name, body, shape, parameters } => {
                let device = self.device_of(context).and_then(|ordinal| self.device(ordinal));
                let spoiled = device.is_some_and(|device| device.spoiled.contains(&name));
                let damage = match fault {
                    Some(Fault::FlipBit(bit)) => Some(Damage::FlipBit(bit)),
                    Some(Fault::StopAfter(most)) => Some(Damage::StopAfter(most)),
                    _ => spoiled.then_some(Damage::Garbage),
                };
                let mut launch = Launch::new(self, context, call, shape, &parameters, damage);
                let run = core::panic::AssertUnwindSafe(|| body(&mut launch));
                as_callback(|| std::panic::catch_unwind(run)).unwrap_or(Err(code::LAUNCH_FAILED))
            }
            Work::Free { address } => {
                let device = ordinal_of(address).and_then(|ordinal| self.device_mut(ordinal));
                let freed = device.and_then(|device| device.memory.free(address));
                freed.map(drop).ok_or(code::INVALID_VALUE)
            }
            Work::HostCall { function, data } => {
                // SAFETY: the program passed this function to the driver to be called once with
                // this data, and promised that it can be called from any thread.
                as_callback(|| unsafe { function(ptr::with_exposed_provenance_mut(data)) });
                Ok(())
            }
            Work::Record { event } => {
                if let Some(event) = self.events.get_mut(&event) {
                    event.reached = Some(Instant::now());
                }
                Ok(())
            }
            Work::WaitFor { .. } | Work::Nothing => Ok(()),
        }
    }

    /// Copies `len` bytes between checked ends, and optionally flips one bit.
    fn copy(&mut self, source: &Place, target: &Place, len: u64, flip: Option<(u64, u8)>) {
        let mut buffer = vec![0; STEP.min(usize::try_from(len).unwrap_or(STEP))];
        let mut done = 0_u64;
        while done < len {
            let left = usize::try_from(len.saturating_sub(done)).unwrap_or(usize::MAX);
            let Some(piece) = buffer.get_mut(..left.min(STEP)) else { return };
            let count = piece.len();
            let at = usize::try_from(done).unwrap_or(usize::MAX);
            match source {
                Place::Device(address) => {
                    let address = address.saturating_add(done);
                    if let Some((_, device)) = self.device_at(address) {
                        device.memory.read(address, piece);
                    }
                }
                Place::Host(address) => {
                    let address = ptr::with_exposed_provenance::<u8>(address.saturating_add(at));
                    // SAFETY: the program named this memory as the source of a copy of at least
                    // this length that has not been waited for, so it is valid for reads; `piece`
                    // is the buffer above, to which no other code has a reference.
                    unsafe { ptr::copy_nonoverlapping(address, piece.as_mut_ptr(), count) };
                }
                Place::Taken(bytes) => {
                    if let Some(bytes) = bytes.get(at..at.saturating_add(count)) {
                        piece.copy_from_slice(bytes);
                    }
                }
            }
            if let Some((position, mask)) = flip
                && let Some(byte) = position
                    .checked_sub(done)
                    .and_then(|position| piece.get_mut(usize::try_from(position).ok()?))
            {
                *byte ^= mask;
            }
            match target {
                Place::Device(address) => {
                    let address = address.saturating_add(done);
                    let device = ordinal_of(address).and_then(|ordinal| self.device_mut(ordinal));
                    if let Some(device) = device {
                        device.memory.write(address, piece);
                    }
                }
                Place::Host(address) => {
                    let address =
                        ptr::with_exposed_provenance_mut::<u8>(address.saturating_add(at));
                    // SAFETY: the program named this memory as the target of a copy of at least
                    // this length that has not been waited for, so it is valid for writes.
                    unsafe { ptr::copy_nonoverlapping(piece.as_ptr(), address, count) };
                }
                // Such memory is only ever a source.
                Place::Taken(_) => {}
            }
            done = done.saturating_add(wide(count));
        }
    }

    /// Whether a stream's operations up to a number are done; if not, runs one more.
    pub(crate) fn advance(&mut self, stream: u64, upto: u64) -> bool {
        let Some(state) = self.streams.get(&stream) else { return true };
        if state.executed >= upto {
            return true;
        }
        let next = state.executed.saturating_add(1);
        self.run(stream, next);
        false
    }

    /// The error for a wait on a stream: the context's, or the stream's own, which is returned
    /// once.
    pub(crate) fn outcome(&mut self, stream: u64) -> Result<(), u32> {
        let Some(state) = self.streams.get_mut(&stream) else { return Ok(()) };
        let context = state.context;
        let own = state.error.take();
        let poison = self.contexts.get(&context).and_then(|context| context.poisoned);
        poison.or(own).map_or(Ok(()), Err)
    }

    /// Waits for all work of a context; returns the error of the first stream that has one.
    pub(crate) fn wait_for_context(&mut self, context: u64) -> Result<(), u32> {
        self.run_context(context);
        let streams: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.context == context)
            .map(|(id, _)| *id)
            .collect();
        let mut first = Ok(());
        for stream in streams {
            first = first.and(self.outcome(stream));
        }
        first
    }

    /// Waits for work that may still use memory that is being freed, as the driver does. Logs a
    /// misuse if the program did not ensure that order.
    pub(crate) fn settle_before_free(
        &mut self,
        context: u64,
        call: &'static str,
        what: &str,
        uses: impl Fn(&Work) -> bool,
    ) {
        if self.queued_use(context, uses) {
            let detail = format!("{what} is used by queued work that was not waited for");
            self.note(MisuseKind::FreedWhileQueued, self.device_of(context), call, detail);
        }
        self.run_context(context);
    }
}

/// How many of `len` bytes a damaged operation writes.
fn reach(len: u64, fault: Option<Fault>) -> u64 {
    match fault {
        Some(Fault::StopAfter(most)) => len.min(most),
        Some(Fault::Drop) => 0,
        _ => len,
    }
}

/// The position of the byte of `len` that a damaged operation changes, and its new bits.
fn flip(len: u64, fault: Option<Fault>) -> Option<(u64, u8)> {
    let Some(Fault::FlipBit(bit)) = fault else { return None };
    let bit = bit.checked_rem(len.saturating_mul(8))?;
    Some((bit / 8, 1 << (bit % 8)))
}
