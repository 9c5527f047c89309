//! Stories of room: wrong figures, and memory that cannot be allocated.

use core::sync::atomic::{AtomicU64, Ordering};

use cuda_sim::{DeviceSpec, Sim};
use vram_gpu::CudaDevice;
use vram_gpu::fault::{Action, Op, When};
use vram_model::synth::{LlamaShape, SynthModel};
use vram_residency::{
    AdmitRequest, Budget, ByteLen, CompactBudget, FileSource, GpuChoice, GpuIndex, MemoryMode,
    SealedShard, SliceSource, VramError, VramManager,
};
use vram_tests::reference::{bytes, footprint};
use vram_tests::rig::Rig;

use super::{KIB, plan, used};

/// vllm-project/aibrix #2744, ggml-org/llama.cpp #24626, vllm #55827, #56830, #10643: two loaders
/// read the free figure, both find room, both load, and one of them fails in the middle.
#[test]
fn free_memory_is_not_room_since_nobody_counts_what_is_promised() {
    let manager = VramManager::new_mock(64 << 10).unwrap();
    let llama = manager.reserve(0, ByteLen::new(40 * KIB)).unwrap();

    // Before the first byte is loaded, the other loader already gets the correct figure.
    let now = manager.capacity(0).unwrap();
    assert_eq!((now.used.get(), now.reserved.get(), now.room.get()), (0, 40 * KIB, 24 * KIB));
    assert!(!manager.fits(&plan(&[30 << 10]), GpuChoice::One(0)).unwrap().is_yes());
    let Err(VramError::InsufficientVram(shortfall)) =
        manager.seal_model("other", 0, &[1; 30 << 10])
    else {
        panic!("it must be refused before it is loaded");
    };
    assert_eq!(shortfall.room.get(), 24 * KIB);
    assert_eq!(shortfall.holders[0].reservation, Some(llama.id()), "and told who has it");

    // For any number of concurrent requests, no more is granted than there is.
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Ok(room) = manager.reserve(0, ByteLen::new(KIB)) {
                    granted.fetch_add(room.len().get(), Ordering::Relaxed);
                    core::mem::forget(room);
                }
            });
        }
    });
    assert_eq!(granted.into_inner(), 24 * KIB);
}

/// ollama #9170, #13235, #12922, #12247, mistral.rs #781, candle #3530: the estimate says that the
/// model fits, and the load says that it does not; or the reverse.
#[test]
fn estimates_are_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let shape = LlamaShape::about(ByteLen::from_mib_saturating(2));
    SynthModel::llama(&shape, 1).unwrap().write_file(&file).unwrap();
    // From the header alone: no weight is read.
    let plan = vram_model::plan(&[&file], &vram_model::Limits::default()).unwrap();
    let needed = plan.footprint().get();

    for budget in [needed, needed - 256] {
        let builder = VramManager::builder().host_device(ByteLen::new(budget));
        let manager = builder.build().unwrap();
        let fits = manager.fits(&plan, GpuChoice::One(0)).unwrap();
        assert_eq!(fits.is_yes(), budget == needed, "{fits}");

        let request = AdmitRequest::new("llama", GpuChoice::One(0));
        let source = FileSource::open(&file).unwrap();
        match manager.admit(request, &plan, &source) {
            Ok(model) => {
                assert!(fits.is_yes());
                // Equal to the estimate, to the byte.
                assert_eq!(used(&manager, 0), needed);
                assert_eq!(model.pieces.len(), plan.pieces().len());
            }
            Err(error) => assert!(error.is_capacity() && !fits.is_yes(), "{error}"),
        }
    }
}

/// mistral.rs #2113 (36 GB stay), vllm #47654, ollama #7745, #11997, burn #4792: the model is
/// unloaded according to the log, and its memory is still held.
#[test]
fn unloaded_but_still_held() {
    let rig = Rig::with(&[1 << 20], 1, |builder| builder.memory(0, MemoryMode::Blocks)).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let lens = [3000, 70_000, 1, 0, 12_345];
    let data = bytes(lens.iter().sum(), 1);
    let request = AdmitRequest::new("llama", GpuChoice::One(0));
    let model = manager.admit(request, &plan(&lens), &vec![SliceSource::new(&data)]).unwrap();
    let held: u64 = device.live().iter().map(|(_, len)| len.get()).sum();
    assert_eq!(held, lens.iter().map(|len| footprint(*len)).sum::<u64>());

    // The receipts contain the driver's own figures.
    let mut freed = 0;
    for receipt in manager.free_model(&model).unwrap() {
        let delta = receipt.driver_delta.unwrap_or(0);
        assert_eq!(delta, i64::try_from(receipt.bytes.get()).unwrap());
        freed += receipt.bytes.get();
    }
    assert_eq!((freed, device.live().len(), used(manager, 0)), (held, 0, 0));

    // If the driver refuses a free, no receipt claims the bytes.
    let stuck = manager.seal_model("llama", 0, &data).unwrap();
    device.next(Op::Free, Action::Driver(999)).unwrap();
    let answer = manager.free_shard(&stuck);
    let Err(VramError::NotReturned { bytes, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(manager.capacity(0).unwrap().unreturned, bytes);
    assert_eq!(used(manager, 0), bytes.get(), "still counted, so never promised again");
}

/// vllm #34600: memory runs out in the middle of a load, and the part loaded until then stays.
#[test]
fn no_rollback_when_memory_runs_out_halfway() {
    let rig = Rig::with(&[256 * KIB], 1, |builder| builder.memory(0, MemoryMode::Blocks)).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let neighbour = manager.seal_model("neighbour", 0, &[7; 1000]).unwrap();
    let load = |lens: &[usize]| {
        let data = bytes(lens.iter().sum(), 1);
        let request = AdmitRequest::new("llama", GpuChoice::One(0));
        manager.admit(request, &plan(lens), &vec![SliceSource::new(&data)])
    };
    let picture = || (manager.capacity(0).unwrap(), manager.shards(), device.live());
    let before = picture();

    // The third tensor finds no room in the ledger: the first two are removed as well.
    let error = load(&[100_000, 100_000, 100_000]).unwrap_err();
    assert!(error.is_capacity() && picture() == before, "{error}");

    // The ledger has room and the driver has not: at the second tensor, at the third.
    let lens = [20_000, 30_000, 40_000];
    for call in 2..=3 {
        device.add(Op::Allocate, When::Nth(call), Action::OutOfMemory).unwrap();
        let error = load(&lens).unwrap_err();
        assert!(error.is_capacity() && picture() == before, "at call {call}: {error}");
        device.clear();
    }
    // The copy fails, or is left out without an error.
    for action in [Action::Driver(999), Action::DropCopy] {
        device.add(Op::QueueWrite, When::Nth(3), action).unwrap();
        let error = load(&lens).unwrap_err();
        assert!(picture() == before, "{error}");
        device.clear();
    }
    assert_eq!(load(&lens).unwrap().pieces.len(), 3, "and the next attempt has all the room");
    assert_eq!(manager.unseal_model(&neighbour).unwrap(), [7; 1000]);
}

/// vllm #36651: the rollback frees memory twice, and thereby frees another allocation.
#[test]
fn a_double_release() {
    let manager = VramManager::new_mock(64 << 10).unwrap();
    let first = manager.seal_model("first", 0, &[1; 10_000]).unwrap();
    let twice = first.clone();
    manager.free_shard(&first).unwrap();
    // Another shard lies in the freed place now.
    let second = manager.seal_model("second", 0, &[2; 10_000]).unwrap();
    for _ in 0..3 {
        let answer = manager.free_shard(&twice);
        assert!(matches!(answer, Err(VramError::ShardFreed { .. })), "{answer:?}");
    }
    assert_eq!(manager.unseal_model(&second).unwrap(), [2; 10_000]);
    assert_eq!(used(&manager, 0), footprint(10_000));
}

/// pytorch #35901, #29554, rmm #2039, #1957, #1421: out of memory, with half the card free.
#[test]
fn out_of_memory_with_half_the_card_free() {
    let total: usize = 64 << 10;
    let manager = VramManager::new_mock(total).unwrap();
    let shards: Vec<SealedShard> =
        (0..64).map(|n| manager.seal_model("small", 0, &[n; 1024]).unwrap()).collect();
    for shard in shards.iter().step_by(2) {
        manager.free_shard(shard).unwrap();
    }
    let now = manager.capacity(0).unwrap();
    assert_eq!((now.room.get(), now.largest_hole.get(), now.hole_count), (32 * KIB, KIB, 32));

    // The error says that a hole is missing, not bytes.
    let large = vec![9; 32 << 10];
    let Err(VramError::InsufficientVram(shortfall)) = manager.seal_model("large", 0, &large) else {
        panic!("there is no such hole");
    };
    assert_eq!((shortfall.room.get(), shortfall.largest_hole.get()), (32 * KIB, KIB));

    // The card can be compacted while shards are in use: nothing is unloaded for it.
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    assert_eq!(report.largest_hole.get(), 32 * KIB);
    let large = manager.seal_model("large", 0, &large).unwrap();
    for (n, shard) in (0_u8..).zip(&shards).skip(1).step_by(2) {
        assert_eq!(manager.unseal_model(shard).unwrap(), [n; 1024]);
    }
    assert!(manager.verify_shard_integrity(&large).unwrap());

    // In mode `Blocks` there are no holes.
    let builder = VramManager::builder().host_device(ByteLen::from_usize(total));
    let manager = builder.memory(0, MemoryMode::Blocks).build().unwrap();
    let shards: Vec<SealedShard> =
        (0..64).map(|n| manager.seal_model("small", 0, &[n; 1024]).unwrap()).collect();
    for shard in shards.iter().step_by(2) {
        manager.free_shard(shard).unwrap();
    }
    assert!(manager.seal_model("large", 0, &[9; 32 << 10]).is_ok());
}

/// gpu-allocator #266, llama.cpp #10091, ollama #7584: the card is full, the driver silently gives
/// host memory instead, and everything is thirty times slower.
#[test]
fn the_driver_silently_spills_to_host_memory() {
    cuda_sim::install();
    let ordinal = Sim::add_device(DeviceSpec {
        capacity: 1 << 20,
        granularity: 256,
        ..DeviceSpec::default()
    });
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap().without_kernels();
    let manager = VramManager::builder()
        .device(device.clone())
        .budget(0, Budget::Bytes(ByteLen::new(1 << 20)))
        .memory(0, MemoryMode::Blocks)
        .build()
        .unwrap();
    // Another process takes most of the card after the figure was read.
    Sim::set_foreign(ordinal, 900 * KIB);

    // The answer is an error with the reason, not memory from elsewhere.
    let answer = manager.seal_model("llama", 0, &bytes(200_000, 1));
    let Err(VramError::InsufficientVram(shortfall)) = answer else { panic!("{answer:?}") };
    assert_eq!(shortfall.foreign.get(), 900 * KIB);
    assert_eq!((shortfall.room.get(), Sim::used(ordinal)), (124 * KIB, 0));

    // The resident shard is an allocation of device memory, with the same number of bytes as in the
    // ledger.
    let shard = manager.seal_model("llama", 0, &bytes(100_000, 1)).unwrap();
    let live = Sim::live_allocations(ordinal);
    assert_eq!((live.len(), live[0].len), (1, footprint(100_000)));
    assert!(manager.verify_shard_integrity(&shard).unwrap());
    drop(manager);
    drop(device);
    Sim::assert_clean(ordinal);
    Sim::retire_device(ordinal);
}
