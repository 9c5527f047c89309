//! What can be done to a world: one step of a state machine.

use proptest::prelude::*;
use proptest::sample::select;
use vram_gpu::codes::ECC_UNCORRECTABLE;
use vram_gpu::fault::{Action, Op, When};

/// `CUDA_ERROR_UNKNOWN`: the call failed, and the device goes on.
const UNKNOWN: u32 = 999;

/// One step. A shard is named by a selector, resolved against what is resident when it runs.
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
    /// A handle with one bit changed is used in every way.
    AlteredHandle {
        shard: usize,
        byte: usize,
        bit: u8,
    },
    /// A handle of a freed shard, or one from before the shard was sealed anew.
    OldHandle {
        selector: usize,
    },
    /// Device memory changes behind everybody's back.
    Flip {
        shard: usize,
        byte: usize,
        bit: u8,
    },
    /// The next calls of a kind fail.
    Fault {
        gpu: u32,
        op: Op,
        when: When,
        action: Action,
    },
}

/// Lengths near the edges of granules and segments as often as others.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..=20_000_usize,
        1 => select(vec![0, 1, 255, 256, 257, 4095, 4096, 4097, 8192, 12_289]),
        1 => 30_000..=70_000_usize,
    ]
}

/// Steps on devices that work.
pub fn sound() -> impl Strategy<Value = Step> {
    let shard = || any::<u16>().prop_map(usize::from);
    let gpu = || prop_oneof![8 => 0..=2_u32, 1 => 3..=4_u32];
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

/// Steps that make devices fail. `sticky` faults take a GPU for good.
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

/// Steps that make the driver refuse memory, its return, or the figures. They concern a manager that
/// takes memory block by block.
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
