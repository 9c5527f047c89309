//! Calls on unrelated shards never wait for each other: one call is blocked inside its device while
//! another thread makes every other call.

use core::time::Duration;
use std::sync::mpsc;
use std::thread;

use vram_residency::device::fault::{FaultPlan, Op};
use vram_residency::{
    MemoryMode, SealRequest, SealedShard, SegmentSize, Threads, Verify, VramError, VramManager,
};
use vram_test_rigs::{Rig, content, devices, held_up};

const LEN: usize = 3 * 4096 + 5;

fn rig(threads: Threads) -> Rig {
    let devices = devices(&[1 << 20; 2], &FaultPlan::new(1));
    Rig::over(devices, MemoryMode::Region, |builder| builder.threads(threads))
}

fn seal(manager: &VramManager, gpu: u32, seed: u64) -> SealedShard {
    manager.seal_model("model", gpu, &content(LEN, seed)).unwrap()
}

/// Every call on shards of `gpu`, and on the figures of both GPUs. Later device calls of these
/// kinds are not blocked: the rule picked only the first.
fn everything(manager: &VramManager, gpu: u32, resident: &SealedShard) -> Result<(), VramError> {
    let fresh = manager.seal(SealRequest::new("fresh", gpu), &content(LEN, 9))?;
    assert_eq!(manager.unseal_model(&fresh)?, content(LEN, 9));
    assert_eq!(manager.read_shard_at_offset(resident, 4000, 200)?, &content(LEN, 7)[4000..4200]);
    assert!(manager.verify(resident, Verify::Full)?.sound);
    let moved = manager.migrate_shard(&fresh, u32::from(gpu == 0))?;
    let back = manager.migrate_shard(&moved, gpu)?;
    let opened = manager.open_resident(&back)?;
    let closed = manager.close_resident(&opened)?;
    manager.free_shard(&closed)?;
    for gpu in 0..2 {
        let capacity = manager.capacity(gpu)?;
        assert!(capacity.used <= capacity.total);
    }
    assert!(manager.shards().contains(resident));
    assert_eq!(manager.report().gpus.len(), 2);
    Ok(())
}

/// Minutes for work of milliseconds: only an endless wait reaches the limit.
const FOR_EVER: Duration = Duration::from_mins(2);

/// Blocks the first `op` of `held` on a GPU until every other call was made, on the other GPU and
/// on the same one.
fn while_held_up(gpu: usize, op: Op, held: impl Fn(&VramManager, &SealedShard) + Sync) {
    for threads in [Threads::ONE, Threads::exactly(3)] {
        let rig = rig(threads);
        let manager = &rig.manager;
        let shard = seal(manager, 0, 3);
        let neighbours = [seal(manager, 0, 7), seal(manager, 1, 7)];

        // It also continues when the sender is dropped, by a test that fails.
        let (came, go_on) = held_up(&rig.devices[gpu], op);
        thread::scope(|scope| {
            let go_on = go_on;
            let holding = scope.spawn(|| held(manager, &shard));
            came.recv_timeout(FOR_EVER).unwrap();
            let (done, all_done) = mpsc::channel();
            let others = scope.spawn(move || {
                for (gpu, neighbour) in (0..).zip(&neighbours) {
                    everything(manager, gpu, neighbour).unwrap();
                }
                done.send(()).unwrap();
            });
            let outcome = all_done.recv_timeout(FOR_EVER);
            assert!(!holding.is_finished(), "nothing was held up");
            drop(go_on);
            others.join().unwrap();
            holding.join().unwrap();
            assert_eq!(outcome, Ok(()), "the others waited for {op:?} of an unrelated shard");
        });
    }
}

#[test]
fn a_seal_whose_copy_blocks_holds_up_nobody() {
    while_held_up(0, Op::QueueWrite, |manager, _shard| {
        let slow = seal(manager, 0, 5);
        assert_eq!(manager.unseal_model(&slow).unwrap(), content(LEN, 5));
    });
}

#[test]
fn a_read_whose_copy_blocks_holds_up_nobody() {
    while_held_up(0, Op::Read, |manager, shard| {
        assert_eq!(manager.unseal_model(shard).unwrap(), content(LEN, 3));
    });
}

#[test]
fn a_free_whose_wipe_blocks_holds_up_nobody() {
    while_held_up(0, Op::Fill, |manager, shard| {
        assert!(manager.free_shard(shard).unwrap().wiped);
    });
}

#[test]
fn a_migration_whose_copy_blocks_holds_up_nobody() {
    while_held_up(1, Op::PeerCopy, |manager, shard| {
        let moved = manager.migrate_shard(shard, 1).unwrap();
        assert_eq!(manager.unseal_model(&moved).unwrap(), content(LEN, 3));
    });
}

#[test]
fn a_device_that_blocks_over_a_staging_buffer_holds_up_nobody() {
    while_held_up(0, Op::Staging, |manager, _shard| {
        // Larger than any buffer that the pool keeps.
        let data = vec![1; 600_000];
        let request = SealRequest::new("large", 0).segment(SegmentSize::from_log2(19).unwrap());
        let large = manager.seal(request, &data).unwrap();
        assert_eq!(manager.unseal_model(&large).unwrap(), data);
    });
}
