//! Models of many small shards over a simulated card: few copies, with and without kernels.

use std::sync::OnceLock;

use vram_residency::{
    AdmitRequest, Compute, GpuChoice, ModelHandle, ModelPlan, Piece, ReadBack, SliceSource, Verify,
};

use super::*;

const PIECES: usize = 1000;
const PIECE: usize = 4096;
const ROOM: u64 = 5 << 20;

struct Card {
    ordinal: u32,
    device: Arc<CudaDevice>,
    manager: VramManager,
}

impl Card {
    fn new(mode: MemoryMode, compute: Compute) -> Self {
        cuda_sim::install();
        let spec = DeviceSpec { capacity: 16 << 20, granularity: 256, ..DeviceSpec::default() };
        let ordinal = Sim::add_device(spec);
        let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap().shared(Sharing::Alone);
        let scratch = match compute {
            Compute::Host => ByteLen::ZERO,
            _ => device.kernel_scratch(),
        };
        let manager = VramManager::builder()
            .device(device.clone())
            .budget(0, Budget::Bytes(ByteLen::new(ROOM).saturating_add(scratch)))
            .memory(0, mode)
            .key(SealKey::from_bytes(&[7; 32]))
            .threads(Threads::exactly(2))
            .compute(compute)
            .build()
            .unwrap();
        if compute != Compute::Host {
            assert!(manager.wait_for_kernels(0, kernels::WAIT).unwrap());
        }
        Self { ordinal, device, manager }
    }

    fn admit(&self, request: AdmitRequest<'_>, data: &[u8]) -> Result<ModelHandle, VramError> {
        self.manager.admit(request, &plan(), &vec![SliceSource::new(data)])
    }

    fn copies(&self) -> [u64; 2] {
        [CallKind::CopyIn, CallKind::CopyOut].map(|kind| Sim::faults(self.ordinal).calls(kind))
    }

    fn finish(self) {
        let Self { ordinal, device, manager } = self;
        drop((manager, device));
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

fn plan() -> ModelPlan {
    let piece = |index: usize| {
        let at = u64::try_from(index * PIECE).unwrap();
        Piece::new(format!("t{index}"), 0, at, ByteLen::from_usize(PIECE))
    };
    ModelPlan::new((0..PIECES).map(piece)).unwrap()
}

fn request() -> AdmitRequest<'static> {
    AdmitRequest::new("small", GpuChoice::One(0))
}

/// P160, P164: 1,000 shards of 4 KiB take at most one copy to the card for 32 of them, and one back, and
/// one to verify them; block by block, one each.
#[test]
fn many_small_shards_of_a_model_take_few_copies() {
    let data = bytes(PIECES * PIECE, 5);
    let few = u64::try_from(PIECES / 32).unwrap();
    for (mode, compute) in [
        (MemoryMode::Region, Compute::Host),
        (MemoryMode::Region, Compute::Checks),
        (MemoryMode::Blocks, Compute::Host),
    ] {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let card = Card::new(mode, compute);
            let before = card.copies();
            let model = card.admit(request().protection(protection), &data).unwrap();
            let after = card.copies();
            for (now, then) in after.iter().zip(before) {
                let calls = now - then;
                match mode {
                    MemoryMode::Blocks => assert!(calls >= wide(PIECES), "{calls}"),
                    _ => assert!(calls <= few, "{calls} for {protection:?}, {compute:?}"),
                }
            }
            for (shard, content) in model.shards().zip(data.chunks(PIECE)) {
                assert_eq!(*card.manager.unseal_model(shard).unwrap(), *content);
            }
            for level in [Verify::Segments, Verify::Full, Verify::Fingerprint] {
                let [_, before] = card.copies();
                assert!(card.manager.verify_model(&model, level).unwrap().sound);
                let calls = card.copies()[1] - before;
                match (mode, compute) {
                    (MemoryMode::Blocks, _) => assert!(calls >= wide(PIECES), "{calls}"),
                    (_, Compute::Host) => assert!(calls <= few, "{calls} for {level:?}"),
                    // Kernels look where the bytes lie.
                    _ => {}
                }
            }
            card.manager.free_model(&model).unwrap();
            card.finish();
        }
    }
}

/// P161: a bit that a copy of many shards alters is found before one of them is resident, in that shard.
#[test]
fn a_bit_altered_in_the_copy_of_many_shards_is_of_one_of_them() {
    let data = bytes(PIECES * PIECE, 6);
    for compute in [Compute::Host, Compute::Checks] {
        for protection in [Protection::Encrypted, Protection::Authenticated] {
            let card = Card::new(MemoryMode::Region, compute);
            let policy = [ReadBack::Default, ReadBack::Full, ReadBack::Fingerprint];
            // Small shards are placed from the high end of a region down.
            for (bit, piece) in
                [(0, 63), (8 * 4096, 62), (8 * 4096 * 9 - 1, 55), (8 * 4096 * 64 - 1, 0)]
            {
                for read_back in policy {
                    Sim::faults(card.ordinal).next(CallKind::CopyIn, Fault::FlipBit(bit));
                    let failed_at = OnceLock::new();
                    let asked = request().protection(protection).read_back(read_back);
                    let refused = card.admit(asked.failed_at(&failed_at), &data).unwrap_err();
                    let VramError::WriteNotKept { gpu: 0, segments } = refused else {
                        panic!("{refused}")
                    };
                    assert_eq!(segments, [0]);
                    assert_eq!(failed_at.get().map(|at| at % 64), Some(piece), "{bit}");
                    assert_eq!(card.manager.capacity(0).unwrap().used, ByteLen::ZERO);
                    assert!(card.manager.shards().is_empty());
                }
            }
            card.finish();
        }
    }
}

/// P161: a copy of many shards that fails, at once or late, to the card or back, leaves it empty.
#[test]
fn a_copy_of_many_shards_that_fails_leaves_the_card_empty() {
    let data = bytes(PIECES * PIECE, 7);
    let card = Card::new(MemoryMode::Region, Compute::Host);
    for kind in [CallKind::CopyIn, CallKind::CopyOut] {
        for fault in [Fault::Fail(UNKNOWN), Fault::FailLater(UNKNOWN)] {
            for nth in [1, 5] {
                Sim::faults(card.ordinal).clear();
                Sim::faults(card.ordinal).repeat(kind, nth, 1, fault);
                let failed_at = OnceLock::new();
                let refused = card.admit(request().failed_at(&failed_at), &data).unwrap_err();
                assert!(matches!(refused, VramError::Device { gpu: 0, .. }), "{refused}");
                assert_eq!(failed_at.get().map(|at| at % 64), Some(0), "the first of a batch");
                assert_eq!(card.manager.capacity(0).unwrap().used, ByteLen::ZERO);
                assert!(card.manager.shards().is_empty());
            }
        }
    }
    Sim::faults(card.ordinal).clear();
    let model = card.admit(request(), &data).unwrap();
    assert_eq!(*card.manager.unseal_model(&model.pieces[999].shard).unwrap(), data[999 * PIECE..]);
    card.manager.free_model(&model).unwrap();
    card.finish();
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}
