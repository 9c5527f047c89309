//! The pointer of a lease on a host device: a program reads the plaintext where it lies, as an engine
//! does that computes on the host.
//!
//! One of the few suites with `unsafe`, for exactly that read.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[macro_use]
extern crate vram_testkit;

use std::thread;

use vram_residency::device::fault::{Action, FaultPlan, Op};
use vram_residency::{
    ByteLen, Lease, Protection, ResetOptions, SealRequest, SealedShard, VramManager,
};
use vram_test_rigs::devices;

const MIB: usize = 1 << 20;

fn plain(manager: &VramManager, data: &[u8]) -> SealedShard {
    let request = SealRequest::new("model", 0).protection(Protection::Authenticated);
    manager.seal(request, data).unwrap()
}

/// Content that depends on the position, so that a shifted copy is detected.
fn content(len: usize, salt: u8) -> Vec<u8> {
    (0_u8..=250).map(|byte| byte ^ salt).cycle().take(len).collect()
}

/// The plaintext of a leased shard, in place. The slice ends before the lease does.
fn plaintext(lease: &Lease) -> &[u8] {
    let address = usize::try_from(lease.device_pointer().unwrap().get()).unwrap();
    let len = lease.len().to_usize().unwrap();
    let start = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: the device is a host device, so the pointer is one of this process. While the lease
    // exists, `len` plaintext bytes lie there and no call writes to them. The slice borrows the lease.
    unsafe { core::slice::from_raw_parts(start, len) }
}

#[test]
fn the_plaintext_lies_at_the_pointer_from_end_to_end() {
    let manager = VramManager::new_mock_multi_gpu(vec![16 * MIB]).unwrap();
    // Several chunks of the device, whole and in parts.
    for len in [1, 4097, 2 * MIB, 7 * MIB + 3] {
        let shard = plain(&manager, &content(len, 7));
        let lease = manager.lease(&shard).unwrap();
        assert!(plaintext(&lease) == content(len, 7), "{len} bytes");
        drop(lease);
        manager.free_shard(&shard).unwrap();
    }
}

#[test]
fn a_lease_is_read_while_other_calls_write_to_the_same_memory() {
    let manager = VramManager::new_mock_multi_gpu(vec![8 * MIB]).unwrap();
    let wanted = content(100_000, 1);
    let lease = manager.lease(&plain(&manager, &wanted)).unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            for salt in 0..30 {
                // Small ones lie in the same chunk as the leased one.
                let shards = [3000, MIB].map(|len| plain(&manager, &content(len, salt)));
                for shard in shards {
                    manager.free_shard(&shard).unwrap();
                }
            }
        });
        loop {
            let ended = other.is_finished();
            assert!(plaintext(&lease) == wanted);
            if ended {
                break;
            }
        }
    });
    drop(manager);
    assert!(plaintext(&lease) == wanted, "a lease outlives the manager");
    assert_eq!(lease.len(), ByteLen::from_usize(wanted.len()));
}

#[test]
fn a_freed_shard_is_wiped_where_it_lay() {
    let manager = VramManager::new_mock_multi_gpu(vec![8 * MIB]).unwrap();
    let wanted = content(3 * MIB, 9);
    let gone = plain(&manager, &wanted);
    let kept = manager.lease(&plain(&manager, &[1; 64])).unwrap();
    let address = manager.lease(&gone).unwrap().device_pointer().unwrap().get();
    manager.free_shard(&gone).unwrap();
    let start = core::ptr::with_exposed_provenance::<u8>(usize::try_from(address).unwrap());
    // SAFETY: the region of the device still exists, since the manager does, and no call is running.
    let seen = unsafe { core::slice::from_raw_parts(start, wanted.len()) };
    assert!(seen.iter().all(|&byte| byte == 0));
    assert_eq!(plaintext(&kept), [1; 64]);
}

#[test]
fn memory_that_a_reset_replaced_stays_until_the_lease_ends() {
    let device = devices(&[16 * MIB], &FaultPlan::new(1)).remove(0);
    let manager = VramManager::builder().device(device.clone()).build().unwrap();
    let wanted = content(3 * MIB, 5);
    let shard = plain(&manager, &wanted);
    let lease = manager.lease(&shard).unwrap();
    // A slow reader that began before the loss.
    let reading = plaintext(&lease);
    device.next(Op::Read, Action::Driver(214)).unwrap();
    manager.unseal_model(&shard).unwrap_err();
    device.clear();
    drop(manager.reset_gpu(0, ResetOptions::new()).unwrap());
    assert_eq!(lease.device_pointer(), None);
    let fresh = plain(&manager, &content(8 * MIB, 6));
    assert!(reading == wanted, "another shard lies elsewhere");
    drop(lease);
    assert!(manager.unseal_model(&fresh).unwrap() == content(8 * MIB, 6));
}
