//! Where memory lies, according to the driver, for every kind of allocation; and whether another process
//! finds it there.

use core::ffi::c_void;
use core::fmt::Write as _;
use core::ptr;

use cust::sys::{self, CUpointer_attribute_enum as Attribute, CUresult};
use vram_alloc::{ByteLen, DeviceOffset, DeviceRange};
use vram_gpu::{CudaDevice, Device, DeviceSpec, GpuError, SHARE_UNIT, ShareHandle};

use crate::machine;
use crate::plain::{self, Plain};
use crate::rows::row;

/// The driver's attributes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// 1 is host memory, 2 device memory.
    kind: u32,
    managed: bool,
    /// Whether the host can access it by a pointer.
    host_pointer: bool,
    ordinal: i32,
}

/// Queries the driver. The device's context is current on this thread.
fn place(address: u64) -> Place {
    let (mut kind, mut managed, mut ordinal) = (0_u32, 0_u32, -9_i32);
    let mut host: *mut c_void = ptr::null_mut();
    let mut attributes = [
        Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        Attribute::CU_POINTER_ATTRIBUTE_HOST_POINTER,
        Attribute::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
    ];
    let mut answers: [*mut c_void; 4] = [
        (&raw mut kind).cast(),
        (&raw mut managed).cast(),
        (&raw mut host).cast(),
        (&raw mut ordinal).cast(),
    ];
    // SAFETY: four attributes and four output places, each large enough for its value; any address
    // may be queried.
    let result = unsafe {
        sys::cuPointerGetAttributes(4, attributes.as_mut_ptr(), answers.as_mut_ptr(), address)
    };
    assert_eq!(result, CUresult::CUDA_SUCCESS);
    Place { kind, managed: managed != 0, host_pointer: !host.is_null(), ordinal }
}

#[test]
fn allocations_are_video_memory_from_the_first_byte_to_the_last() {
    for device in machine::devices() {
        let gpu = machine::name(&device);
        let _context = plain::context(device.ordinal());
        let ordinal = i32::try_from(device.ordinal()).unwrap();
        let resident = Place { kind: 2, managed: false, host_pointer: false, ordinal };
        for len in [1, 4096, 3 << 20, 64 << 20] {
            let memory = device.allocate(ByteLen::new(len)).unwrap();
            let first = memory.address().get();
            for address in [first, first + len / 2, first + len - 1] {
                assert_eq!(place(address), resident, "{gpu}, {len} bytes");
            }
            let what = format!("{len} bytes");
            row("residency", &[&gpu, &what, &"device memory, no host pointer, not managed"]);
            memory.free().unwrap();
        }
    }
}

/// Staging that is not page-locked is as exact and several times as slow: the report says which.
#[test]
fn staging_is_page_locked() {
    for device in machine::devices() {
        let gpu = machine::name(&device);
        let _context = plain::context(device.ordinal());
        for len in [4096, 4 << 20, 64 << 20] {
            let staging = device.staging(ByteLen::new(len)).unwrap();
            let kind = place(staging.as_slice().as_ptr().addr() as u64).kind;
            let answer = if staging.is_page_locked() { "page-locked" } else { "not page-locked" };
            row("residency", &[&gpu, &format_args!("staging of {len} bytes"), &answer]);
            assert!(staging.is_page_locked() && kind == 1, "{len} bytes: type {kind}");
        }
    }
}

/// The check above can fail: page-locked host memory has other attributes.
#[test]
fn page_locked_memory_is_told_from_video_memory() {
    for device in machine::devices() {
        let plain = Plain::new(device.ordinal(), ByteLen::MIB);
        let locked = place(plain.locked.as_slice().as_ptr().addr() as u64);
        assert_eq!((locked.kind, locked.host_pointer), (1, true), "{locked:?}");
        let resident = place(plain.memory.as_device_ptr().as_raw());
        assert_eq!((resident.kind, resident.host_pointer), (2, false), "{resident:?}");
        let gpu = machine::name(&device);
        row("residency", &[&gpu, &"page-locked host memory", &"host memory, with a host pointer"]);
    }
}

/// The variable that tells the other process what to open: a handle and the UUID of its device.
const SHARED: &str = "VRAM_GPU_SHARED";

/// The content of shared memory before the other process writes to its first byte.
fn content() -> Vec<u8> {
    (0..SHARE_UNIT.get()).map(|at| (at % 251) as u8 + 1).collect()
}

#[test]
fn another_process_uses_an_allocation_where_it_lies() {
    for device in machine::devices() {
        let gpu = machine::name(&device);
        let memory = device.allocate(SHARE_UNIT).unwrap();
        memory.write(DeviceRange::whole(memory.len()), &content()).unwrap();
        let handle = match memory.share() {
            Ok(handle) => handle,
            Err(refused @ GpuError::NotShareable { .. }) => {
                row("shared", &[&gpu, &"refused", &refused]);
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let own = device.open_shared(&handle).map(drop);
        row("shared", &[&gpu, &"opened by the process that made it", &format_args!("{own:?}")]);
        assert!(matches!(own, Err(GpuError::NotShareable { .. })));
        let mut digits = String::new();
        for byte in handle.to_bytes() {
            write!(digits, "{byte:02x}").unwrap();
        }
        let begun = std::time::Instant::now();
        let other = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "residency::the_other_process", "--nocapture"])
            .env(SHARED, format!("{digits} {}", device.info().uuid))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&other.stdout);
        assert!(other.status.success(), "{said}{}", String::from_utf8_lossy(&other.stderr));
        row("shared", &[&gpu, &"the other process took", &format_args!("{:?}", begun.elapsed())]);
        let mut bytes = vec![0; SHARE_UNIT.to_usize().unwrap()];
        memory.read(DeviceRange::whole(memory.len()), &mut bytes).unwrap();
        let mut wanted = content();
        wanted[0] = 0;
        assert!(bytes == wanted, "what it wrote is here, and nothing else");
    }
}

/// The other half of the check above, in the process that it starts. Without what that check tells it,
/// there is nothing to do: a check that is left out would be missed in the log.
#[test]
fn the_other_process() {
    let Ok(told) = std::env::var(SHARED) else { return };
    let (digits, uuid) = told.split_once(' ').unwrap();
    let byte = |at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    let handle = ShareHandle::from_bytes(core::array::from_fn(byte));
    let ordinal = CudaDevice::ordinal_of(uuid.parse::<DeviceSpec>().unwrap()).unwrap();
    let device = machine::open(ordinal, 0);
    let memory = device.open_shared(&handle).unwrap();
    assert_eq!(memory.len(), SHARE_UNIT);
    let mut bytes = vec![0; SHARE_UNIT.to_usize().unwrap()];
    memory.read(DeviceRange::whole(memory.len()), &mut bytes).unwrap();
    assert!(bytes == content());
    let first = DeviceRange::checked(DeviceOffset::START, ByteLen::new(1), memory.len()).unwrap();
    memory.write(first, &[0]).unwrap();
    memory.free().unwrap();
}
