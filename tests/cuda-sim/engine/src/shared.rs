//! Memory that processes share: an allocation that was exported lies in an anonymous file, which other
//! processes map.
//!
//! The file begins with a page of its own, in which the processes tell each other what they do with it.

use core::sync::atomic::{AtomicU32, Ordering};
use std::path::PathBuf;

use crate::code;

/// Bytes of a handle.
pub(crate) const HANDLE_LEN: usize = 64;
/// Bytes before the content: the page in which processes tell each other what they do.
const HEAD: usize = 4096;
/// What a handle and a head begin with.
const MARK: [u8; 8] = *b"cudasim1";
/// Where the head has the state of the memory, and where the processes that have it open begin.
const STATE_AT: usize = 64;
const SLOTS_AT: usize = 128;
/// Processes that may have the memory open at the same time.
const SLOTS: usize = 256;
/// The states of the memory.
const LIVE: u32 = 1;
const FREED: u32 = 2;

/// What a handle says. Everything in it is checked against the file that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) process: u32,
    descriptor: u32,
    nonce: [u8; 16],
    pub(crate) uuid: [u8; 16],
    pub(crate) len: u64,
}

impl Ticket {
    pub(crate) fn to_bytes(self) -> [u8; HANDLE_LEN] {
        let mut bytes = [0; HANDLE_LEN];
        let parts: [&[u8]; 6] = [
            &MARK,
            &self.process.to_le_bytes(),
            &self.descriptor.to_le_bytes(),
            &self.nonce,
            &self.uuid,
            &self.len.to_le_bytes(),
        ];
        for (target, byte) in bytes.iter_mut().zip(parts.iter().copied().flatten()) {
            *target = *byte;
        }
        bytes
    }

    /// `None` for bytes that are no handle.
    pub(crate) fn from_bytes(bytes: &[u8; HANDLE_LEN]) -> Option<Self> {
        let (mark, rest) = bytes.split_first_chunk()?;
        let (process, rest) = rest.split_first_chunk()?;
        let (descriptor, rest) = rest.split_first_chunk()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (uuid, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        (*mark == MARK && rest.iter().all(|byte| *byte == 0)).then(|| Self {
            process: u32::from_le_bytes(*process),
            descriptor: u32::from_le_bytes(*descriptor),
            nonce: *nonce,
            uuid: *uuid,
            len: u64::from_le_bytes(*len),
        })
    }

    /// The file, as another process finds it.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.process, self.descriptor))
    }
}

/// The bytes of an allocation that processes share, mapped into this one.
#[derive(Debug)]
pub(crate) struct Shared {
    ticket: Ticket,
    map: sys::Map,
}

impl Shared {
    /// Makes memory that other processes can open.
    pub(crate) fn create(uuid: [u8; 16], len: u64) -> Result<Self, u32> {
        let (file, descriptor) = sys::anonymous_file().ok_or(code::OUT_OF_MEMORY)?;
        let bytes = usize::try_from(len).ok().and_then(|len| len.checked_add(HEAD));
        let bytes = bytes.ok_or(code::OUT_OF_MEMORY)?;
        let whole = u64::try_from(bytes).map_err(|_| code::OUT_OF_MEMORY)?;
        file.set_len(whole).map_err(|_| code::OUT_OF_MEMORY)?;
        let map = sys::Map::of(file, bytes).ok_or(code::MAP_FAILED)?;
        let nonce = crate::random::nonce();
        let ticket = Ticket { process: std::process::id(), descriptor, nonce, uuid, len };
        let mut shared = Self { ticket, map };
        let head = ticket.to_bytes();
        if let Some(target) = shared.map.bytes_mut().get_mut(..HANDLE_LEN) {
            target.copy_from_slice(&head);
        }
        shared.word(STATE_AT).store(LIVE, Ordering::Release);
        Ok(shared)
    }

    /// Maps what another process has exported, and notes there that this process has it open.
    pub(crate) fn open(ticket: Ticket) -> Result<Self, u32> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(ticket.path());
        // The process is gone, or it has closed the file.
        let file = file.map_err(|_| code::INVALID_VALUE)?;
        let bytes = usize::try_from(ticket.len).ok().and_then(|len| len.checked_add(HEAD));
        let bytes = bytes.ok_or(code::INVALID_VALUE)?;
        let found = file.metadata().map_err(|_| code::INVALID_VALUE)?.len();
        if usize::try_from(found) != Ok(bytes) {
            return Err(code::INVALID_VALUE);
        }
        let map = sys::Map::of(file, bytes).ok_or(code::MAP_FAILED)?;
        let shared = Self { ticket, map };
        // The number of a descriptor is used again: the nonce says whether this is still that file.
        let is_it = shared.map.bytes().get(..HANDLE_LEN) == Some(&ticket.to_bytes()[..]);
        if !is_it || shared.word(STATE_AT).load(Ordering::Acquire) != LIVE {
            return Err(code::INVALID_VALUE);
        }
        shared.note_open()?;
        Ok(shared)
    }

    fn note_open(&self) -> Result<(), u32> {
        let own = std::process::id();
        let slots = (0..SLOTS).map(|slot| self.slot(slot));
        for slot in slots {
            let holder = slot.load(Ordering::Acquire);
            let is_free = holder == 0 || !sys::is_alive(holder);
            let taken = |slot: &AtomicU32| {
                slot.compare_exchange(holder, own, Ordering::AcqRel, Ordering::Acquire).is_ok()
            };
            if is_free && taken(slot) {
                return Ok(());
            }
        }
        Err(code::MAP_FAILED)
    }

    /// Notes that this process has it open no longer.
    pub(crate) fn note_closed(&self) {
        let own = std::process::id();
        for slot in (0..SLOTS).map(|slot| self.slot(slot)) {
            if slot.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }

    /// Notes that its owner has freed it: from now on nobody opens it.
    pub(crate) fn note_freed(&self) {
        self.word(STATE_AT).store(FREED, Ordering::Release);
    }

    /// The processes that are alive and have it open.
    pub(crate) fn holders(&self) -> Vec<u32> {
        let holders = (0..SLOTS).map(|slot| self.slot(slot).load(Ordering::Acquire));
        holders.filter(|holder| *holder != 0 && sys::is_alive(*holder)).collect()
    }

    pub(crate) const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// The content.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.bytes().get(HEAD..).unwrap_or(&[])
    }

    /// The content, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.map.bytes_mut().get_mut(HEAD..).unwrap_or(&mut [])
    }

    fn slot(&self, slot: usize) -> &AtomicU32 {
        self.word(SLOTS_AT.saturating_add(slot.saturating_mul(4)))
    }

    fn word(&self, at: usize) -> &AtomicU32 {
        self.map.word(at)
    }
}

#[cfg(target_os = "linux")]
mod sys {
    use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
    use core::ptr::{self, NonNull};
    use core::sync::atomic::AtomicU32;
    use std::fs::File;
    use std::os::fd::{AsRawFd as _, FromRawFd as _};

    const PROT_READ_WRITE: c_int = 1 | 2;
    const MAP_SHARED: c_int = 1;
    const CLOSE_ON_EXEC: c_uint = 1;

    // The C library that `std` links on this system; the engine has no dependency.
    unsafe extern "C" {
        fn memfd_create(name: *const c_char, flags: c_uint) -> c_int;
        fn mmap(
            address: *mut c_void,
            len: usize,
            protection: c_int,
            flags: c_int,
            descriptor: c_int,
            offset: i64,
        ) -> *mut c_void;
        fn munmap(address: *mut c_void, len: usize) -> c_int;
    }

    /// A file that no folder has, and its descriptor.
    pub(super) fn anonymous_file() -> Option<(File, u32)> {
        const NAME: &CStr = c"cuda-sim";
        // SAFETY: the name ends in a NUL; the call has no other condition.
        let descriptor = unsafe { memfd_create(NAME.as_ptr(), CLOSE_ON_EXEC) };
        let number = u32::try_from(descriptor).ok()?;
        // SAFETY: the call gave this descriptor a moment ago, and nothing else has it.
        Some((unsafe { File::from_raw_fd(descriptor) }, number))
    }

    /// Whether a process runs: one that has ended and was not waited for does not.
    pub(super) fn is_alive(process: u32) -> bool {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{process}/stat")) else {
            return false;
        };
        // The name in parentheses may contain anything; the state follows the last one.
        let state = text.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// A file mapped for reading and writing, whole.
    #[derive(Debug)]
    pub(super) struct Map {
        start: NonNull<u8>,
        len: usize,
        // Open for as long as others may look for it under its number.
        _file: File,
    }

    // SAFETY: the mapping belongs to this value alone; no thread has anything to do with it.
    unsafe impl Send for Map {}
    // SAFETY: through a shared reference it is only read, but for the words of its head, which are
    // atomic.
    unsafe impl Sync for Map {}

    impl Map {
        /// Maps `len` bytes, at least one, of a file that is as long.
        pub(super) fn of(file: File, len: usize) -> Option<Self> {
            let descriptor = file.as_raw_fd();
            // SAFETY: a new mapping anywhere replaces none; the descriptor is open.
            let start =
                unsafe { mmap(ptr::null_mut(), len, PROT_READ_WRITE, MAP_SHARED, descriptor, 0) };
            // A failure is the address -1.
            let start = (start.addr() != usize::MAX).then_some(start)?;
            Some(Self { start: NonNull::new(start.cast())?, len, _file: file })
        }

        pub(super) fn bytes(&self) -> &[u8] {
            // SAFETY: mapped for this many bytes until this value is dropped. Another process may
            // write them meanwhile, as on a card; a program that reads what is being written gets
            // some bytes, and no decision of the simulator rests on them.
            unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as for `bytes`; within this process the reference is the only one.
            unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }

        /// The word at a position within the head, which is a multiple of four.
        #[expect(clippy::cast_ptr_alignment, reason = "a page, and a multiple of four in it")]
        pub(super) fn word(&self, at: usize) -> &AtomicU32 {
            debug_assert!(at.is_multiple_of(4) && at < super::HEAD);
            let at = self.start.as_ptr().wrapping_add(at).cast::<u32>();
            // SAFETY: within the mapping, which begins at a page and is longer than the head; all
            // processes use these words as atomics alone.
            unsafe { AtomicU32::from_ptr(at) }
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            // SAFETY: mapped by `of` with this length; no reference to it outlives this value.
            let _answer = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod sys {
    use core::sync::atomic::AtomicU32;
    use std::fs::File;

    /// Only Linux has what this needs.
    pub(super) fn anonymous_file() -> Option<(File, u32)> {
        None
    }

    pub(super) fn is_alive(_process: u32) -> bool {
        false
    }

    #[derive(Debug)]
    pub(super) enum Map {}

    impl Map {
        pub(super) fn of(_file: File, _len: usize) -> Option<Self> {
            None
        }

        pub(super) fn bytes(&self) -> &[u8] {
            match *self {}
        }

        pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
            match *self {}
        }

        pub(super) fn word(&self, _at: usize) -> &AtomicU32 {
            match *self {}
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_handle_says_all_of_it_and_other_bytes_are_none() {
        let shared = Shared::create([7; 16], 10_000).unwrap();
        let ticket = shared.ticket();
        let bytes = ticket.to_bytes();
        assert_eq!(Ticket::from_bytes(&bytes), Some(ticket));
        assert_eq!((ticket.process, ticket.len), (std::process::id(), 10_000));
        for bad in [0, 7, 63] {
            let mut other = bytes;
            other[bad] ^= 1;
            assert_eq!(Ticket::from_bytes(&other), None, "{bad}");
        }
    }

    #[test]
    fn what_is_opened_is_the_same_memory_until_it_is_freed() {
        let mut one = Shared::create([7; 16], 10_000).unwrap();
        let two = Shared::open(one.ticket()).unwrap();
        one.bytes_mut()[9_999] = 5;
        assert_eq!((two.bytes()[9_999], two.bytes().len()), (5, 10_000));
        assert_eq!(one.holders(), [std::process::id()]);
        two.note_closed();
        assert_eq!(one.holders(), [0_u32; 0]);
        let other = Ticket { nonce: [1; 16], ..one.ticket() };
        assert_eq!(Shared::open(other).map(drop), Err(code::INVALID_VALUE));
        one.note_freed();
        assert_eq!(Shared::open(one.ticket()).map(drop), Err(code::INVALID_VALUE));
        let ticket = one.ticket();
        drop(one);
        assert_eq!(Shared::open(ticket).map(drop), Err(code::INVALID_VALUE));
    }
}
