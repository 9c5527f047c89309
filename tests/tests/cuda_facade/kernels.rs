//! Managers over a card with kernels: they check there, say so, and do without where there are none.

use core::time::Duration;

use vram_residency::device::Device as _;
use vram_residency::{
    Checked, Compute, Evidence, ResetOptions, Site, Suite, Verify, VramManagerBuilder,
};

use super::*;

/// The longest that a test waits for kernels.
pub(super) const WAIT: Duration = Duration::from_secs(30);
pub(super) const ROOM: u64 = 1 << 20;

/// A budget with `ROOM` for shards.
fn budget_of(device: &CudaDevice) -> ByteLen {
    ByteLen::new(ROOM).saturating_add(device.kernel_scratch())
}

/// A card with room for kernels, and a manager over it.
pub(super) struct Card {
    pub(super) ordinal: u32,
    device: Arc<CudaDevice>,
    pub(super) manager: VramManager,
}

impl Card {
    pub(super) fn new(compute: Compute) -> Self {
        cuda_sim::install();
        let ordinal = Sim::add_device(DeviceSpec { capacity: 16 << 20, ..DeviceSpec::default() });
        Self::on(ordinal, compute)
    }

    fn on(ordinal: u32, compute: Compute) -> Self {
        let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap().shared(Sharing::Alone);
        let builder: VramManagerBuilder = VramManager::builder()
            .device(device.clone())
            .budget(0, Budget::Bytes(budget_of(&device)))
            .key(SealKey::from_bytes(&[7; 32]))
            .segment_size(SegmentSize::from_log2(12).unwrap())
            .threads(Threads::exactly(2))
            .compute(compute);
        Self { ordinal, device, manager: builder.build().unwrap() }
    }

    /// Forms of shards: what lies in memory, and the cipher.
    fn seal_all(&self) -> Vec<SealedShard> {
        [
            (Protection::Authenticated, Suite::Aes256Gcm),
            (Protection::Encrypted, Suite::Aes256Gcm),
            (Protection::Encrypted, Suite::ChaCha20Poly1305),
        ]
        .into_iter()
        .map(|(protection, suite)| {
            let request = SealRequest::new("model", 0).protection(protection).suite(suite);
            self.manager.seal(request, &content()).unwrap()
        })
        .collect()
    }

    /// Where plaintext lies on the card.
    fn address_of(&self, content: &[u8]) -> u64 {
        let at = self.region().windows(64).position(|window| window == &content[..64]).unwrap();
        self.region_start() + u64::try_from(at).unwrap()
    }

    fn region_start(&self) -> u64 {
        let live = Sim::live_allocations(self.ordinal);
        live.iter().find(|allocation| allocation.len == ROOM).unwrap().address
    }

    /// The bytes of the region.
    pub(super) fn region(&self) -> Vec<u8> {
        Sim::inspect(self.ordinal, self.region_start(), usize::try_from(ROOM).unwrap())
    }

    pub(super) fn finish(self) {
        let Self { ordinal, device, manager } = self;
        drop((manager, device));
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}

#[test]
fn checks_are_computed_by_the_card_which_the_verdict_says_and_the_accounts_agree() {
    for compute in [Compute::Checks, Compute::Card] {
        let card = Card::new(compute);
        assert!(card.manager.wait_for_kernels(0, WAIT).unwrap());
        let shards = card.seal_all();
        let budget = budget_of(&card.device).get();
        assert_eq!(Sim::used(card.ordinal), budget, "the region, and the kernels' own");
        for (form, shard) in shards.iter().enumerate() {
            assert_eq!(*card.manager.unseal_model(shard).unwrap(), content());
            for level in [Verify::Fingerprint, Verify::Segments, Verify::Full] {
                let verdict = card.manager.verify(shard, level).unwrap();
                assert!(verdict.sound && verdict.altered.is_empty(), "{form} {level:?}");
            }
            let by = card.manager.verify(shard, Verify::Fingerprint).unwrap().checked;
            let expected = Checked { evidence: Evidence::Fingerprint, site: Site::Card };
            assert_eq!(by, Some(expected), "{form}");
        }

        // A bit in the third segment, behind the driver.
        let address = card.address_of(&content());
        Sim::flip_bit(card.ordinal, address, (2 * wide(SEGMENT) + 100) * 8 + 3);
        let verdict = card.manager.verify(&shards[0], Verify::Fingerprint).unwrap();
        assert!(!verdict.sound);
        assert_eq!(verdict.altered.len(), 1);
        assert!(card.manager.unseal_model(&shards[0]).unwrap_err().is_integrity());
        let figures = card.manager.metrics().gpus[0].kernels;
        assert!(figures.used && figures.fingerprinted > ByteLen::ZERO, "{figures:?}");
        assert_eq!(figures.disagreements, 0);
        card.finish();
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap()
}

#[test]
fn a_card_that_computes_wrong_is_not_asked_and_the_host_finds_the_same() {
    cuda_sim::install();
    let ordinal = Sim::add_device(DeviceSpec { capacity: 16 << 20, ..DeviceSpec::default() });
    Sim::spoil_kernel(ordinal, "fingerprint");
    let card = Card::on(ordinal, Compute::Card);
    assert!(!card.manager.wait_for_kernels(0, WAIT).unwrap());
    let shards = card.seal_all();
    for shard in &shards {
        let verdict = card.manager.verify(shard, Verify::Full).unwrap();
        assert!(verdict.sound && verdict.content);
        assert_eq!(verdict.checked.map(|checked| checked.site), Some(Site::Host));
    }
    Sim::flip_bit(ordinal, card.address_of(&content()), 5);
    assert!(!card.manager.verify(&shards[0], Verify::Segments).unwrap().sound);
    assert!(card.manager.metrics().gpus[0].kernels.fallbacks > 0);
    card.finish();
}

#[test]
fn a_launch_that_loses_the_card_is_followed_by_a_reset_with_kernels() {
    let card = Card::new(Compute::Checks);
    assert!(card.manager.wait_for_kernels(0, WAIT).unwrap());
    let shard = card.seal_all().remove(0);
    card.manager.back_up(&shard).unwrap();
    Sim::faults(card.ordinal).next(CallKind::Launch, Fault::FailLater(719));
    let lost = card.manager.verify(&shard, Verify::Full).unwrap_err();
    assert_eq!(lost.code(), "device-lost");
    let calls = Sim::faults(card.ordinal).all_calls();
    assert_eq!(card.manager.unseal_model(&shard).unwrap_err().code(), "device-lost");
    assert_eq!(Sim::faults(card.ordinal).all_calls(), calls, "the driver was called");

    let report = card.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert_eq!(report.restored.len(), 1);
    assert!(card.manager.wait_for_kernels(0, WAIT).unwrap());
    let verdict = card.manager.verify(&report.restored[0], Verify::Full).unwrap();
    assert!(verdict.sound && verdict.content);
    card.finish();
}

/// Managers come and go while the driver compiles.
#[test]
fn a_manager_may_be_dropped_while_kernels_are_loaded() {
    for _round in 0..10 {
        let card = Card::new(Compute::Checks);
        let shards = card.seal_all();
        assert!(card.manager.verify(&shards[1], Verify::Segments).unwrap().sound);
        card.finish();
    }
}

/// P130: what the driver counts never exceeds the budget, and a GPU that is full to the last byte is
/// checked by its kernels.
#[test]
fn scratch_memory_is_a_part_of_the_budget_and_a_full_card_is_checked() {
    for mode in MODES {
        cuda_sim::install();
        let ordinal = Sim::add_device(DeviceSpec {
            capacity: 16 << 20,
            granularity: 256,
            ..DeviceSpec::default()
        });
        let device = CudaDevice::open(ordinal, GpuIndex::new(0)).unwrap();
        let budget = budget_of(&device);
        let build = |budget: ByteLen| {
            VramManager::builder()
                .device(device.clone())
                .budget(0, Budget::Bytes(budget))
                .memory(0, mode)
                .build()
        };
        let none = device.kernel_scratch().saturating_sub(ByteLen::new(1));
        let refused = build(none).unwrap_err().to_string();
        assert!(refused.contains("the kernels of the device take"), "{refused}");
        assert_eq!(Sim::used(ordinal), 0, "{refused}");

        let manager = build(budget).unwrap();
        let now = manager.capacity(0).unwrap();
        assert_eq!((now.total.get(), now.scratch), (ROOM, device.kernel_scratch()));
        assert_eq!((now.used.get(), now.free.get()), (0, ROOM));
        assert_eq!((now.room.get(), now.largest_hole.get()), (ROOM, ROOM));
        // The last byte that is free, before the kernels are loaded.
        let request = || SealRequest::new("model", 0).protection(Protection::Authenticated);
        let data = bytes(usize::try_from(ROOM).unwrap(), 3);
        let shard = manager.seal(request(), &data).unwrap();
        let full = manager.seal(request(), &[1]).unwrap_err();
        assert!(full.is_capacity(), "{full}");
        assert!(manager.wait_for_kernels(0, WAIT).unwrap());
        assert_eq!(Sim::used(ordinal), budget.get());
        let verdict = manager.verify(&shard, Verify::Full).unwrap();
        assert_eq!(verdict.checked.map(|checked| checked.site), Some(Site::Card), "{mode:?}");
        assert_eq!(manager.refresh(0).unwrap().foreign, ByteLen::ZERO);
        assert!(manager.reconcile(0).unwrap().agrees);

        // Others take what is left of the card: nothing of the budget.
        Sim::set_foreign(ordinal, (16 << 20) - budget.get());
        assert_eq!(manager.refresh(0).unwrap().foreign, ByteLen::ZERO);
        manager.set_budget(0, now.scratch).unwrap();
        assert_eq!(manager.capacity(0).unwrap().room, ByteLen::ZERO);
        manager.set_budget(0, budget).unwrap();
        manager.free_shard(&shard).unwrap();
        assert_eq!(manager.capacity(0).unwrap().room.get(), ROOM);
        drop((manager, device));
        Sim::assert_clean(ordinal);
        Sim::retire_device(ordinal);
    }
}
