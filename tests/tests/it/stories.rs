//! What users of other systems complain about, told again: each test is one complaint, and shows
//! that it cannot happen here. The threads that tell it are named above each.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use cuda_sim::{DeviceSpec, Sim};
use vram_gpu::fault::{Action, Op, When};
use vram_gpu::{CudaDevice, codes};
use vram_model::synth::{LlamaShape, SynthModel};
use vram_residency::{
    AdmitRequest, Budget, ByteLen, Class, CompactBudget, FileSource, GpuChoice, GpuIndex,
    LinkState, Lru, MemoryMode, ModelPlan, OnEviction, Piece, Protection, RepairOptions,
    ResetOptions, ScrubCursor, SealRequest, SealedShard, SliceSource, Verify, VramError,
    VramManager,
};
use vram_tests::reference::{bytes, footprint};
use vram_tests::rig::Rig;

const KIB: u64 = 1024;

fn plan(lens: &[usize]) -> ModelPlan {
    let mut offset = 0;
    let pieces = lens.iter().enumerate().map(|(number, len)| {
        let len = u64::try_from(*len).unwrap();
        offset += len;
        Piece::new(format!("tensor.{number}"), 0, offset - len, ByteLen::new(len))
    });
    ModelPlan::new(pieces).unwrap()
}

fn used(manager: &VramManager, gpu: u32) -> u64 {
    manager.capacity(gpu).unwrap().used.get()
}

/// vllm-project/aibrix #2744, ggml-org/llama.cpp #24626, vllm #55827, #56830, #10643: two loaders
/// look at the free figure, both find room, both load, and one of them dies halfway.
#[test]
fn free_memory_is_not_room_since_nobody_counts_what_is_promised() {
    let manager = VramManager::new_mock(64 << 10).unwrap();
    let llama = manager.reserve(0, ByteLen::new(40 * KIB)).unwrap();

    // Not a byte of it is loaded yet, and the other loader is told the truth at once.
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

    // However many ask at once, no more is granted than there is.
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
/// model fits, and the load says that it does not; or the other way round.
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
                // To the byte what was said.
                assert_eq!(used(&manager, 0), needed);
                assert_eq!(model.pieces.len(), plan.pieces().len());
            }
            Err(error) => assert!(error.is_capacity() && !fits.is_yes(), "{error}"),
        }
    }
}

/// mistral.rs #2113 (36 GB stay), vllm #47654, ollama #7745, #11997, burn #4792: the model is
/// unloaded, the log says so, and its memory is still held.
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

    // The receipts are the driver's own word, not ours.
    let mut freed = 0;
    for receipt in manager.free_model(&model).unwrap() {
        let delta = receipt.driver_delta.unwrap_or(0);
        assert_eq!(delta, i64::try_from(receipt.bytes.get()).unwrap());
        freed += receipt.bytes.get();
    }
    assert_eq!((freed, device.live().len(), used(manager, 0)), (held, 0, 0));

    // And where the driver does not take memory back, nobody claims that it did.
    let stuck = manager.seal_model("llama", 0, &data).unwrap();
    device.next(Op::Free, Action::Driver(999)).unwrap();
    let answer = manager.free_shard(&stuck);
    let Err(VramError::NotReturned { bytes, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(manager.capacity(0).unwrap().unreturned, bytes);
    assert_eq!(used(manager, 0), bytes.get(), "still counted, so never promised again");
}

/// vllm #34600: memory runs out halfway through a load, and what was loaded until then stays.
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

    // The third tensor finds no room in the books: the first two are not there either.
    let error = load(&[100_000, 100_000, 100_000]).unwrap_err();
    assert!(error.is_capacity() && picture() == before, "{error}");

    // The books had room, and the driver has not: at the second tensor, at the third.
    let lens = [20_000, 30_000, 40_000];
    for call in 2..=3 {
        device.add(Op::Allocate, When::Nth(call), Action::OutOfMemory).unwrap();
        let error = load(&lens).unwrap_err();
        assert!(error.is_capacity() && picture() == before, "at call {call}: {error}");
        device.clear();
    }
    // The copy fails, or turns out not to have happened.
    for action in [Action::Driver(999), Action::DropCopy] {
        device.add(Op::QueueWrite, When::Nth(3), action).unwrap();
        let error = load(&lens).unwrap_err();
        assert!(picture() == before, "{error}");
        device.clear();
    }
    assert_eq!(load(&lens).unwrap().pieces.len(), 3, "and the next attempt has all the room");
    assert_eq!(manager.unseal_model(&neighbour).unwrap(), [7; 1000]);
}

/// vllm #36651: the rollback frees what was freed already, and takes somebody else's memory.
#[test]
fn a_double_release() {
    let manager = VramManager::new_mock(64 << 10).unwrap();
    let first = manager.seal_model("first", 0, &[1; 10_000]).unwrap();
    let twice = first.clone();
    manager.free_shard(&first).unwrap();
    // Somebody else now lies where it lay.
    let second = manager.seal_model("second", 0, &[2; 10_000]).unwrap();
    for _ in 0..3 {
        let answer = manager.free_shard(&twice);
        assert!(matches!(answer, Err(VramError::ShardFreed { .. })), "{answer:?}");
    }
    assert_eq!(manager.unseal_model(&second).unwrap(), [2; 10_000]);
    assert_eq!(used(&manager, 0), footprint(10_000));
}

/// vllm #48310, #53888, #54235, #29341, `torch_memory_saver` #71: the model sleeps, wakes, and
/// answers nonsense from then on.
#[test]
fn silent_corruption_after_sleep_and_wake() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let data = bytes(50_000, 1);
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let request = SealRequest::new("llama", 0).protection(protection);
        let shard = manager.seal(request, &data).unwrap();

        // Whatever the copy back does and calls a success, it is looked at before it counts.
        let mut parked = manager.park(&shard).unwrap();
        let wrong = [
            Action::DropCopy,
            Action::ShortCopy { keep: 20_000 },
            Action::FlipBit { byte: 777, bit: 7 },
        ];
        for action in wrong {
            device.next(Op::QueueWrite, action.clone()).unwrap();
            let failed = manager.wake(parked, 0).expect_err("it must be noticed");
            let error = failed.error();
            assert!(matches!(error, VramError::WriteNotKept { .. }), "{action:?}: {error}");
            assert_eq!((used(manager, 0), error.class()), (0, Class::Fatal));
            parked = failed.into_parked();
        }
        // The sleeping copy is as it was, and wakes where the copy works.
        let awake = manager.wake(parked, 0).unwrap();
        assert_eq!(manager.unseal_and_free(&awake).unwrap(), data);
    }
}

/// vllm #53537 (a customer was served from a corrupted 4 GB shard), #52689, #51350, diffusers
/// #14784, sglang #17009: nothing ever compares the weights that serve with those that were meant.
#[test]
fn corrupt_weights_served() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let manager = &rig.manager;
    let data = bytes(50_000, 1);

    // Corrupted before it came: the content is compared with the digest of the catalogue.
    let meant = vram_residency::ContentHasher::digest(vram_residency::HashKind::Blake3, &data);
    let mut damaged = data.clone();
    damaged[33_333] ^= 4;
    let options = vram_residency::SealOptions::new().expected_digest(meant);
    let answer =
        manager.seal_from(SealRequest::new("llama", 0), SliceSource::new(&damaged), options);
    assert!(matches!(answer, Err(VramError::DigestMismatch { .. })), "{answer:?}");
    assert_eq!(used(manager, 0), 0);

    // Corrupted on the way, though the copy reports success.
    rig.devices[0].next(Op::QueueWrite, Action::FlipBit { byte: 5, bit: 5 }).unwrap();
    let answer = manager.seal_model("llama", 0, &data);
    assert!(matches!(answer, Err(VramError::WriteNotKept { .. })), "{answer:?}");

    // Corrupted while it lies there: named to the segment, and not a byte of it is served.
    for protection in [Protection::Encrypted, Protection::Authenticated] {
        let request = SealRequest::new("llama", 0).protection(protection);
        let shard = manager.seal(request, &data).unwrap();
        assert!(rig.flip(&shard, 0, 33_333, 2));
        let verdict = manager.verify(&shard, Verify::Segments).unwrap();
        let altered: Vec<u64> = verdict.altered.iter().map(|span| span.segment).collect();
        assert_eq!((verdict.sound, altered), (false, vec![33_333 / 4096]));
        let answer = manager.read_shard_at_offset(&shard, 0, 1);
        assert!(matches!(answer, Err(VramError::Quarantined { .. })), "{answer:?}");
        assert!(matches!(manager.lease(&shard), Err(VramError::Quarantined { .. })));
        manager.free_shard(&shard).unwrap();
    }
}

/// NVIDIA/open-gpu-kernel-modules #1257, pytorch #84803, unsloth #10613: a copy between two GPUs
/// returns success, and other bytes arrive.
#[test]
fn a_copy_between_gpus_that_returns_success_and_wrong_bytes() {
    let rig = Rig::new(&[256 * KIB, 256 * KIB], 1).unwrap();
    let (manager, target) = (&rig.manager, &rig.devices[1]);
    let data = bytes(50_000, 1);
    let shard = manager.seal_model("llama", 0, &data).unwrap();

    target.add(Op::PeerCopy, When::From(1), Action::DropCopy).unwrap();
    let moved = manager.migrate_shard(&shard, 1).unwrap();
    assert_eq!(manager.unseal_model(&moved).unwrap(), data, "it went the long way");
    assert_eq!(manager.report().distrusted_links, [(0, 1)], "and the link is known");

    // Nobody has to lose a migration to find out.
    let rig = Rig::new(&[2 << 20, 2 << 20], 1).unwrap();
    rig.devices[1].add(Op::PeerCopy, When::From(1), Action::FlipBit { byte: 900, bit: 1 }).unwrap();
    let links = rig.manager.probe_links();
    let state = |source, target| {
        let found = links.iter().find(|link| (link.source, link.target) == (source, target));
        found.unwrap().state
    };
    assert_eq!((state(0, 1), state(1, 0)), (LinkState::Distrusted, LinkState::Direct));
}

/// triton-inference-server #3583, llama.cpp #21231: a model is unloaded while a request reads it.
#[test]
fn a_model_in_use_is_unloaded() {
    let manager = VramManager::builder()
        .host_device(ByteLen::new(64 * KIB))
        .eviction(Lru)
        .on_eviction(OnEviction::Free)
        .build()
        .unwrap();
    let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &[7; 40_000]).unwrap();
    let lease = manager.lease(&shard).unwrap();

    // By nobody: not on demand, not to make room, not to tidy up.
    let in_use = |answer: &VramError| matches!(answer, VramError::InUse { leases: 1, .. });
    assert!(in_use(&manager.free_shard(&shard).unwrap_err()));
    assert!(in_use(&manager.park(&shard).unwrap_err()));
    assert!(in_use(&manager.close_resident(&shard).unwrap_err()));
    let patience = Duration::from_millis(1);
    assert!(in_use(&manager.free_shard_within(&shard, patience).unwrap_err()));
    let urgent = SealRequest::new("urgent", 0).priority(u32::MAX);
    let refusal = manager.seal(urgent.clone(), &[1; 40_000]).unwrap_err();
    assert!(refusal.is_capacity(), "{refusal}");
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    assert_eq!(report.moves, 0);
    assert!(lease.device_pointer().is_some(), "the kernel reads on");

    drop(lease);
    assert!(manager.seal(urgent, &[1; 40_000]).is_ok(), "and then it makes room");
    assert!(matches!(manager.unseal_model(&shard), Err(VramError::ShardFreed { .. })));
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

    // The refusal says that it is not the bytes that are missing, but a hole.
    let large = vec![9; 32 << 10];
    let Err(VramError::InsufficientVram(shortfall)) = manager.seal_model("large", 0, &large) else {
        panic!("there is no such hole");
    };
    assert_eq!((shortfall.room.get(), shortfall.largest_hole.get()), (32 * KIB, KIB));

    // And the card can be tidied while it serves: nothing is unloaded for it.
    let report = manager.compact(0, CompactBudget::new()).unwrap();
    assert_eq!(report.largest_hole.get(), 32 * KIB);
    let large = manager.seal_model("large", 0, &large).unwrap();
    for (n, shard) in (0_u8..).zip(&shards).skip(1).step_by(2) {
        assert_eq!(manager.unseal_model(shard).unwrap(), [n; 1024]);
    }
    assert!(manager.verify_shard_integrity(&large).unwrap());

    // Block by block there are no holes at all.
    let builder = VramManager::builder().host_device(ByteLen::from_usize(total));
    let manager = builder.memory(0, MemoryMode::Blocks).build().unwrap();
    let shards: Vec<SealedShard> =
        (0..64).map(|n| manager.seal_model("small", 0, &[n; 1024]).unwrap()).collect();
    for shard in shards.iter().step_by(2) {
        manager.free_shard(shard).unwrap();
    }
    assert!(manager.seal_model("large", 0, &[9; 32 << 10]).is_ok());
}

/// gpu-allocator #266, llama.cpp #10091, ollama #7584: the card is full, the driver gives out host
/// memory in its place without a word, and everything is thirty times slower.
#[test]
fn the_driver_silently_spills_to_host_memory() {
    cuda_sim::install();
    let ordinal = Sim::add_device(DeviceSpec {
        capacity: 1 << 20,
        granularity: 256,
        ..DeviceSpec::default()
    });
    let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap();
    let manager = VramManager::builder()
        .device(device.clone())
        .budget(0, Budget::Bytes(ByteLen::new(1 << 20)))
        .memory(0, MemoryMode::Blocks)
        .build()
        .unwrap();
    // Another process takes most of the card after we were told that it is ours.
    Sim::set_foreign(ordinal, 900 * KIB);

    // The answer is a refusal with the reason, not memory from elsewhere.
    let answer = manager.seal_model("llama", 0, &bytes(200_000, 1));
    let Err(VramError::InsufficientVram(shortfall)) = answer else { panic!("{answer:?}") };
    assert_eq!(shortfall.foreign.get(), 900 * KIB);
    assert_eq!((shortfall.room.get(), Sim::used(ordinal)), (124 * KIB, 0));

    // What is resident is an allocation of device memory: as many bytes as the books say.
    let shard = manager.seal_model("llama", 0, &bytes(100_000, 1)).unwrap();
    let live = Sim::live_allocations(ordinal);
    assert_eq!((live.len(), live[0].len), (1, footprint(100_000)));
    assert!(manager.verify_shard_integrity(&shard).unwrap());
    drop(manager);
    drop(device);
    Sim::assert_clean(ordinal);
    Sim::retire_device(ordinal);
}

/// antirez/ds4 #759: one uncorrectable error, and the process answers nothing but errors for hours,
/// on every card, until somebody restarts it.
#[test]
fn a_poisoned_context_serves_only_errors_for_hours() {
    let rig = Rig::new(&[256 * KIB, 256 * KIB], 1).unwrap();
    let (manager, device) = (&rig.manager, &rig.devices[0]);
    let data = bytes(50_000, 1);
    let saved = manager.seal_model("saved", 0, &data).unwrap();
    let unsaved = manager.seal_model("unsaved", 0, &data).unwrap();
    let elsewhere = manager.seal_model("elsewhere", 1, &data).unwrap();
    manager.back_up(&saved).unwrap();

    device.next(Op::Read, Action::Driver(codes::ECC_UNCORRECTABLE)).unwrap();
    for shard in [&saved, &unsaved] {
        let answer = manager.unseal_model(shard);
        assert!(matches!(answer, Err(VramError::DeviceLost { gpu: 0, .. })), "{answer:?}");
    }
    // That card alone, and nobody goes on trying it.
    assert_eq!(device.calls_after_loss(), 0);
    assert_eq!(manager.unseal_model(&elsewhere).unwrap(), data);

    // One call, and it serves again: what there was a copy of is back, the rest is named.
    let report = manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!(report.restored[0].shard_id, saved.shard_id);
    assert_eq!(report.lost[0].shard_id, unsaved.shard_id);
    assert_eq!(manager.unseal_model(&report.restored[0]).unwrap(), data);
    assert_eq!(used(manager, 0), footprint(data.len()));
    let fresh = manager.seal_model("unsaved", 0, &data).unwrap();
    assert_eq!(manager.unseal_model(&fresh).unwrap(), data);
    // Nobody takes what a handle from before names for what lies there now.
    assert!(matches!(manager.unseal_model(&saved), Err(VramError::StaleHandle { .. })));
    assert!(matches!(manager.unseal_model(&unsaved), Err(VramError::ShardFreed { .. })));
}

/// vllm #53537 once more, sglang #17009, radixark/miles #405: the weights were checked when they were
/// loaded, and never again; a bit that flips a week later serves until somebody notices the answers.
#[test]
fn nothing_watches_the_weights_after_they_were_loaded() {
    let rig = Rig::new(&[256 * KIB], 1).unwrap();
    let manager = &rig.manager;
    let data = bytes(50_000, 1);
    let request = SealRequest::new("llama", 0).protection(Protection::Authenticated);
    let shard = manager.seal(request, &data).unwrap();
    let lease = manager.lease(&shard).unwrap();
    assert!(rig.flip(lease.shard(), 0, 12_345, 6));
    assert!(lease.ensure_sound().is_ok(), "nobody has looked yet");

    // The scrubber passes by while kernels read, and takes the pointer away.
    let mut cursor = ScrubCursor::new();
    let step = manager.scrub_step(&mut cursor, ByteLen::MIB);
    assert_eq!(step.altered, core::slice::from_ref(&shard.shard_id));
    assert!(lease.device_pointer().is_none() && lease.ensure_sound().is_err());
    drop(lease);

    // Three segments of four are as they were: the fourth alone is written again.
    let source = SliceSource::new(&data);
    let report = manager.repair_from(&shard, source, RepairOptions::new()).unwrap();
    assert_eq!(report.segments, [12_345 / 4096]);
    assert_eq!(manager.unseal_model(&shard).unwrap(), data);
}
