//! Opaque handles: pointers that must not be dereferenced and contain their kind.

use core::ffi::c_void;
use core::ptr;

/// Not canonical on any 64-bit host: dereferencing a handle stops the program.
const MARK: u64 = 0x00C0_0000_0000_0000;

/// The kind of object behind a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Context,
    Stream,
    Event,
    Module,
    Function,
}

impl Kind {
    const fn tag(self) -> u64 {
        match self {
            Self::Context => 1,
            Self::Stream => 2,
            Self::Event => 3,
            Self::Module => 4,
            Self::Function => 5,
        }
    }
}

/// The pointer for `id`.
pub(crate) fn encode(kind: Kind, id: u64) -> *mut c_void {
    let value = MARK | (kind.tag() << 48) | (id << 4);
    ptr::without_provenance_mut(usize::try_from(value).unwrap_or(0))
}

/// The id of a pointer, if it is a handle of this kind.
pub(crate) fn decode(kind: Kind, handle: *mut c_void) -> Option<u64> {
    let value = u64::try_from(handle.addr()).ok()?;
    let id = (value & 0x0000_FFFF_FFFF_FFFF) >> 4;
    (encode(kind, id) == handle).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_comes_back_as_its_own_kind_only() {
        let handle = encode(Kind::Stream, 77);
        assert_eq!(decode(Kind::Stream, handle), Some(77));
        assert_eq!(decode(Kind::Event, handle), None);
        assert_eq!(decode(Kind::Stream, ptr::null_mut()), None);
        assert_eq!(decode(Kind::Stream, ptr::without_provenance_mut(4096)), None);
    }
}
