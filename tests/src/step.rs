//! The operations on a world: one step of a state machine.

use proptest::prelude::*;
use proptest::sample::select;
use vram_gpu::codes::ECC_UNCORRECTABLE;
use vram_gpu::fault::{Action, Op, When};

/// `CUDA_ERROR_UNKNOWN`: the call failed, and the device stays usable.
const UNKNOWN: u32 = 999;

/// One step. A selector picks its shard among the resident ones when the step runs.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are what their names say")]
pub enum Step {
    Seal {
        gpu: u32,
        len: usize,
        seed: u64,
        authenticated: bool,
        segment_scope: bool,
    },
    Unseal {
        shard: usize,
    },
    UnsealAndFree {
        shard: usize,
    },
    Free {
        shard: usize,
    },
    Read {
        shard: usize,
        offset: usize,
        length: usize,
    },
    Verify {
        shard: usize,
        level: u8,
    },
    Migrate {
        shard: usize,
        gpu: u32,
    },
    Open {
        shard: usize,
    },
    Close {
        shard: usize,
    },
    /// Calls every operation on a handle with one bit changed.
    AlteredHandle {
        shard: usize,
        byte: usize,
        bit: u8,
    },
    /// Calls operations on the handle of a freed shard, or on one from before the shard was sealed
    /// again.
    OldHandle {
        selector: usize,
    },
    /// Changes device memory without a call of the manager.
    Flip {
        shard: usize,
        byte: usize,
        bit: u8,
    },
    Park {
        shard: usize,
    },
    Wake {
        parked: usize,
        gpu: u32,
    },
    /// Drops a parked shard.
    GiveUp {
        parked: usize,
    },
    /// Exports a shard and imports the image, which may be damaged at one byte.
    Carry {
        shard: usize,
        gpu: u32,
        damage: Option<usize>,
    },
    Compact {
        gpu: u32,
        max: Option<u64>,
    },
    ProbeLinks,
    Reseal {
        shard: usize,
        key: usize,
    },
    ActivateKey {
        key: usize,
    },
    /// Retires a key, and adds it again.
    RetireKey {
        key: usize,
    },
    Lease {
        shard: usize,
    },
    EndLease {
        lease: usize,
    },
    Pin {
        shard: usize,
        pinned: bool,
    },
    Reserve {
        gpu: u32,
        bytes: u64,
    },
    SealReserved {
        reservation: usize,
        len: usize,
        seed: u64,
    },
    Release {
        reservation: usize,
    },
    Budget {
        gpu: u32,
        bytes: u64,
    },
    Headroom {
        gpu: u32,
        bytes: u64,
    },
    /// Makes room for this many bytes in one piece, with a plan that was requested before.
    Evict {
        gpu: u32,
        bytes: u64,
    },
    /// Seals a shard that may evict others.
    SealEvicting {
        gpu: u32,
        len: usize,
        seed: u64,
    },
    Admit {
        gpu: Option<u32>,
        lens: Vec<usize>,
        seed: u64,
        authenticated: bool,
    },
    ReservePlan {
        gpu: Option<u32>,
        lens: Vec<usize>,
    },
    AdmitReserved {
        plan: usize,
        seed: u64,
    },
    ReleasePlan {
        plan: usize,
    },
    ParkModel {
        model: usize,
    },
    WakeModel {
        model: usize,
        gpu: Option<u32>,
    },
    MigrateModel {
        model: usize,
        gpu: u32,
    },
    VerifyModel {
        model: usize,
    },
    FreeModel {
        model: usize,
    },
    BackUp {
        shard: usize,
    },
    DropBackup {
        shard: usize,
    },
    /// Writes a shard to an image of its own.
    ExportTo {
        shard: usize,
    },
    Reset {
        gpu: u32,
        force: bool,
        elsewhere: bool,
    },
    /// Repairs a shard from a source, which may have one wrong byte.
    Repair {
        shard: usize,
        wrong: bool,
    },
    Scrub {
        bytes: u64,
    },
    Ticket {
        shard: usize,
    },
    Reconcile {
        gpu: u32,
    },
    /// Lets the next calls of a kind fail.
    Fault {
        gpu: u32,
        op: Op,
        when: When,
        action: Action,
    },
}

/// Lengths near the boundaries of granules and segments as often as other lengths.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..=20_000_usize,
        1 => select(vec![0, 1, 255, 256, 257, 4095, 4096, 4097, 8192, 12_289]),
        1 => 30_000..=70_000_usize,
    ]
}

/// Steps on devices without faults.
pub fn sound() -> impl Strategy<Value = Step> {
    prop_oneof![27 => basic(), 12 => moves(), 12 => room(), 8 => models(), 10 => care()]
}

fn shard() -> impl Strategy<Value = usize> {
    any::<u16>().prop_map(usize::from)
}

fn gpu() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 0..=2_u32, 1 => 3..=4_u32]
}

/// Parking, images, compaction, keys.
fn moves() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => shard().prop_map(|shard| Step::Park { shard }),
        3 => (shard(), gpu()).prop_map(|(parked, gpu)| Step::Wake { parked, gpu }),
        1 => shard().prop_map(|parked| Step::GiveUp { parked }),
        2 => (shard(), gpu(), prop::option::weighted(0.4, any::<usize>()))
            .prop_map(|(shard, gpu, damage)| Step::Carry { shard, gpu, damage }),
        2 => (gpu(), prop::option::of(0..=60_000_u64))
            .prop_map(|(gpu, max)| Step::Compact { gpu, max }),
        1 => Just(Step::ProbeLinks),
        2 => (shard(), 0..=1_usize).prop_map(|(shard, key)| Step::Reseal { shard, key }),
        1 => (0..=1_usize).prop_map(|key| Step::ActivateKey { key }),
        1 => (0..=1_usize).prop_map(|key| Step::RetireKey { key }),
    ]
}

/// Leases, reservations, budgets, evictions.
fn room() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => shard().prop_map(|shard| Step::Lease { shard }),
        4 => shard().prop_map(|lease| Step::EndLease { lease }),
        1 => (shard(), any::<bool>()).prop_map(|(shard, pinned)| Step::Pin { shard, pinned }),
        2 => (gpu(), 0..=40_000_u64).prop_map(|(gpu, bytes)| Step::Reserve { gpu, bytes }),
        2 => (shard(), len(), any::<u64>()).prop_map(|(reservation, len, seed)| {
            Step::SealReserved { reservation, len, seed }
        }),
        2 => shard().prop_map(|reservation| Step::Release { reservation }),
        1 => (gpu(), prop_oneof![0..=140_000_u64, Just(1 << 40)])
            .prop_map(|(gpu, bytes)| Step::Budget { gpu, bytes }),
        1 => (gpu(), prop_oneof![3 => Just(0), 1 => 0..=20_000_u64])
            .prop_map(|(gpu, bytes)| Step::Headroom { gpu, bytes }),
        2 => (gpu(), 0..=60_000_u64).prop_map(|(gpu, bytes)| Step::Evict { gpu, bytes }),
        2 => (gpu(), len(), any::<u64>())
            .prop_map(|(gpu, len, seed)| Step::SealEvicting { gpu, len, seed }),
    ]
}

/// Whole models.
fn models() -> impl Strategy<Value = Step> {
    let lens = || prop::collection::vec(prop_oneof![0..=300_usize, 0..=9000_usize], 0..=4);
    let somewhere = || prop::option::of(gpu());
    prop_oneof![
        3 => (somewhere(), lens(), any::<u64>(), any::<bool>()).prop_map(
            |(gpu, lens, seed, authenticated)| Step::Admit { gpu, lens, seed, authenticated }
        ),
        1 => (somewhere(), lens()).prop_map(|(gpu, lens)| Step::ReservePlan { gpu, lens }),
        1 => (shard(), any::<u64>()).prop_map(|(plan, seed)| Step::AdmitReserved { plan, seed }),
        1 => shard().prop_map(|plan| Step::ReleasePlan { plan }),
        1 => shard().prop_map(|model| Step::ParkModel { model }),
        1 => (shard(), somewhere()).prop_map(|(model, gpu)| Step::WakeModel { model, gpu }),
        1 => (shard(), gpu()).prop_map(|(model, gpu)| Step::MigrateModel { model, gpu }),
        1 => shard().prop_map(|model| Step::VerifyModel { model }),
        1 => shard().prop_map(|model| Step::FreeModel { model }),
    ]
}

/// Backups, resets, repairs and checks.
fn care() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => shard().prop_map(|shard| Step::BackUp { shard }),
        1 => shard().prop_map(|shard| Step::DropBackup { shard }),
        2 => shard().prop_map(|shard| Step::ExportTo { shard }),
        3 => (gpu(), any::<bool>(), any::<bool>())
            .prop_map(|(gpu, force, elsewhere)| Step::Reset { gpu, force, elsewhere }),
        3 => (shard(), any::<bool>()).prop_map(|(shard, wrong)| Step::Repair { shard, wrong }),
        2 => (0..=60_000_u64).prop_map(|bytes| Step::Scrub { bytes }),
        1 => shard().prop_map(|shard| Step::Ticket { shard }),
        2 => gpu().prop_map(|gpu| Step::Reconcile { gpu }),
    ]
}

/// One shard at a time.
fn basic() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (gpu(), len(), any::<u64>(), any::<bool>(), any::<bool>()).prop_map(
            |(gpu, len, seed, authenticated, segment_scope)| {
                Step::Seal { gpu, len, seed, authenticated, segment_scope }
            }
        ),
        2 => shard().prop_map(|shard| Step::Unseal { shard }),
        1 => shard().prop_map(|shard| Step::UnsealAndFree { shard }),
        2 => shard().prop_map(|shard| Step::Free { shard }),
        4 => (shard(), 0..=70_000_usize, 0..=20_000_usize)
            .prop_map(|(shard, offset, length)| Step::Read { shard, offset, length }),
        2 => (shard(), 0..=4_u8).prop_map(|(shard, level)| Step::Verify { shard, level }),
        3 => (shard(), gpu()).prop_map(|(shard, gpu)| Step::Migrate { shard, gpu }),
        2 => shard().prop_map(|shard| Step::Open { shard }),
        2 => shard().prop_map(|shard| Step::Close { shard }),
        1 => (shard(), any::<usize>(), 0..=7_u8)
            .prop_map(|(shard, byte, bit)| Step::AlteredHandle { shard, byte, bit }),
        1 => any::<usize>().prop_map(|selector| Step::OldHandle { selector }),
        1 => (shard(), any::<usize>(), 0..=7_u8)
            .prop_map(|(shard, byte, bit)| Step::Flip { shard, byte, bit }),
    ]
}

/// Steps that make devices fail. `sticky` faults make a GPU lost until a reset.
pub fn fault(sticky: bool) -> impl Strategy<Value = Step> {
    let moving = || {
        select(vec![
            Op::Write,
            Op::Read,
            Op::Fill,
            Op::Copy,
            Op::PeerCopy,
            Op::QueueWrite,
            Op::QueueRead,
        ])
    };
    let when = || (1..=6_u64).prop_map(When::Nth);
    let corrupting = prop_oneof![
        Just(Action::FlipAnyBit),
        Just(Action::DropCopy),
        (0..=5000_u64).prop_map(|keep| Action::ShortCopy { keep }),
        Just(Action::Driver(UNKNOWN)),
    ];
    let code = if sticky { ECC_UNCORRECTABLE } else { UNKNOWN };
    prop_oneof![
        6 => (0..=2_u32, moving(), when(), corrupting)
            .prop_map(|(gpu, op, when, action)| Step::Fault { gpu, op, when, action }),
        2 => (0..=2_u32, select(vec![Op::QueueWrite, Op::QueueRead]), when())
            .prop_map(move |(gpu, op, when)| {
                Step::Fault { gpu, op, when, action: Action::LateDriver(code) }
            }),
        1 => (0..=2_u32, moving(), when()).prop_map(move |(gpu, op, when)| {
            Step::Fault { gpu, op, when, action: Action::Driver(code) }
        }),
        1 => (0..=2_u32, when()).prop_map(|(gpu, when)| {
            Step::Fault { gpu, op: Op::Staging, when, action: Action::Driver(UNKNOWN) }
        }),
    ]
}

/// Steps that make the driver refuse an allocation, a free, or its figures. They affect a manager
/// that allocates block by block.
pub fn driver() -> impl Strategy<Value = Step> {
    let calls = select(vec![
        (Op::Allocate, Action::OutOfMemory),
        (Op::Allocate, Action::Driver(UNKNOWN)),
        (Op::Free, Action::Driver(UNKNOWN)),
        (Op::Memory, Action::Driver(UNKNOWN)),
    ]);
    (0..=2_u32, calls, (1..=3_u64).prop_map(When::Nth))
        .prop_map(|(gpu, (op, action), when)| Step::Fault { gpu, op, when, action })
}
