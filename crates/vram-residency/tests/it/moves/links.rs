//! Links between GPUs that report success and deliver other bytes.

use std::sync::Arc;

use vram_residency::device::fault::{Action, FaultPlan, Op, When};
use vram_residency::device::{FaultDevice, GpuError};
use vram_residency::{ByteLen, GpuIndex, LinkState, MemoryMode, VramError, VramManager};
use vram_test_rigs::{Rig, content, devices};

fn two(total: usize) -> (VramManager, Vec<Arc<FaultDevice>>) {
    let devices = devices(&[total; 2], &FaultPlan::new(1));
    let rig = Rig::over(devices, MemoryMode::Region, |builder| builder);
    (rig.manager, rig.devices)
}

fn states(manager: &VramManager) -> Vec<LinkState> {
    manager.probe_links().iter().map(|report| report.state).collect()
}

#[test]
fn sound_links_are_found_direct_and_a_probe_leaves_nothing() {
    let (manager, devices) = two(4 << 20);
    let reports = manager.probe_links();
    assert_eq!(reports.iter().map(|r| (r.source, r.target)).collect::<Vec<_>>(), [(0, 1), (1, 0)]);
    for report in &reports {
        assert_eq!((report.state, report.probed), (LinkState::Direct, ByteLen::MIB));
        assert!(report.to_string().ends_with("direct"));
    }
    for gpu in 0..2 {
        assert_eq!(manager.get_used_vram(gpu).unwrap(), 0);
        assert_eq!(devices[gpu as usize].call_count(Op::Fill), 2, "wiped");
    }
}

/// Reproduces the peer copy that returned success and wrong bytes: a probe detects it before any
/// shard uses the link, and only that direction is avoided.
#[test]
fn a_link_that_lies_is_found_by_a_probe_and_avoided() {
    for action in [
        Action::DropCopy,
        Action::ShortCopy { keep: 100 },
        Action::FlipBit { byte: 70_000, bit: 1 },
    ] {
        let (manager, devices) = two(4 << 20);
        devices[1].add(Op::PeerCopy, When::From(1), action).unwrap();
        assert_eq!(states(&manager), [LinkState::Distrusted, LinkState::Direct]);
        assert_eq!(manager.report().distrusted_links, [(0, 1)]);
        assert!(manager.report().to_string().contains("from gpu 0 to gpu 1 arrived altered"));

        devices[1].clear_log();
        let bytes = content(100_000, 1);
        let shard = manager.seal_model("model", 0, &bytes).unwrap();
        let moved = manager.migrate_shard(&shard, 1).unwrap();
        assert_eq!(manager.unseal_model(&moved).unwrap(), bytes);
        assert_eq!(devices[1].call_count(Op::PeerCopy), 0, "it was avoided");
        assert_eq!(states(&manager), [LinkState::Distrusted, LinkState::Direct], "for good");
    }
}

#[test]
fn a_link_that_lied_to_a_migration_once_is_staged_from_then_on() {
    let (manager, devices) = two(4 << 20);
    devices[1].add(Op::PeerCopy, When::Nth(1), Action::DropCopy).unwrap();
    let bytes = content(100_000, 2);
    let shard = manager.seal_model("model", 0, &bytes).unwrap();
    manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(manager.report().distrusted_links, [(0, 1)]);
    manager.migrate_shard(&shard, 0).unwrap();
    devices[1].clear_log();
    manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(devices[1].call_count(Op::PeerCopy), 0);
    assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
}

/// An altered source does not make the link distrusted.
#[test]
fn a_shard_that_was_altered_before_it_moved_does_not_discredit_the_link() {
    let (manager, devices) = two(4 << 20);
    let shard = manager.seal_model("model", 0, &content(100_000, 3)).unwrap();
    // Small shards lie at the end of the region.
    let inside = vram_alloc::DeviceOffset::new((4 << 20) - 50_000);
    devices[0].flip_bit_at(None, inside, 1).unwrap();
    let refused = manager.migrate_shard(&shard, 1);
    assert!(matches!(refused, Err(VramError::ShardAltered { .. })), "{refused:?}");
    assert!(manager.report().distrusted_links.is_empty());
}

#[test]
fn a_probe_that_cannot_be_made_says_why() {
    let (manager, devices) = two(100_000);
    let full = manager.seal_model("model", 0, &content(99_900, 4)).unwrap();
    for report in manager.probe_links() {
        assert_eq!(report.state, LinkState::Unknown);
        assert!(report.error.unwrap().is_capacity());
    }
    manager.free_shard(&full).unwrap();
    assert_eq!(manager.probe_links()[0].probed.get(), 1 << 16, "as much as there is room for");
    let error = GpuError::driver(GpuIndex::new(1), 1);
    devices[1].add(Op::PeerCopy, When::Nth(1), Action::Fail(error)).unwrap();
    let reports = manager.probe_links();
    assert_eq!((reports[0].state, reports[1].state), (LinkState::Unknown, LinkState::Direct));
    assert!(reports[0].to_string().contains("not probed: "), "{}", reports[0]);
    assert_eq!((manager.get_used_vram(0).unwrap(), manager.get_used_vram(1).unwrap()), (0, 0));
}
