//! Managers over two CUDA devices with kernels: every level of verification, flipped bits, and what
//! moves between the cards.

use core::time::Duration;

use vram_residency::device::Device as _;
use vram_residency::{
    Checked, Compute, Evidence, KernelFigures, ResetOptions, ScrubCursor, Site, Suite, Verify,
};

use super::*;

const WAIT: Duration = Duration::from_mins(1);

const BY_PROOF: Option<Checked> = Some(Checked { evidence: Evidence::Proof, site: Site::Card });
const BY_FINGERPRINT: Option<Checked> =
    Some(Checked { evidence: Evidence::Fingerprint, site: Site::Card });

struct Carded {
    ordinals: Vec<u32>,
    devices: Vec<Arc<CudaDevice>>,
    manager: VramManager,
}

impl Carded {
    fn new(compute: Compute) -> Self {
        cuda_sim::install();
        let spec = || DeviceSpec {
            capacity: 32 << 20,
            granularity: 256,
            peer_group: Some(1),
            ..DeviceSpec::default()
        };
        let ordinals: Vec<u32> = (0..2).map(|_| Sim::add_device(spec())).collect();
        let open = |(index, &ordinal)| {
            let device = CudaDevice::open(ordinal, GpuIndex::new(index)).unwrap();
            device.shared(Sharing::Alone)
        };
        let devices: Vec<_> = (0..).zip(&ordinals).map(open).collect();
        let mut builder = VramManager::builder()
            .key(SealKey::from_bytes(&[7; 32]))
            .segment_size(SegmentSize::MIN)
            .threads(Threads::ONE)
            .compute(compute);
        for (gpu, device) in (0..).zip(&devices) {
            let budget = ByteLen::new(BUDGET).saturating_add(device.kernel_scratch());
            let budget = Budget::Bytes(budget);
            builder = builder.device(Arc::<CudaDevice>::clone(device)).budget(gpu, budget);
        }
        let manager = builder.build().unwrap();
        for gpu in 0..2 {
            assert!(manager.wait_for_kernels(gpu, WAIT).unwrap());
        }
        Self { ordinals, devices, manager }
    }

    fn seal(&self, protection: Protection, suite: Suite) -> SealedShard {
        let request = SealRequest::new("model", 0).protection(protection).suite(suite);
        self.manager.seal(request, &content()).unwrap()
    }

    fn figures(&self, gpu: usize) -> KernelFigures {
        self.manager.metrics().gpus[gpu].kernels
    }

    /// Address and content of the region of the first GPU.
    fn region(&self) -> (u64, Vec<u8>) {
        let live = Sim::live_allocations(self.ordinals[0]);
        let region = live.iter().find(|allocation| allocation.len == BUDGET).unwrap();
        let len = usize::try_from(BUDGET).unwrap();
        (region.address, Sim::inspect(self.ordinals[0], region.address, len))
    }

    /// Seals, and finds out where: at the first granule that changed.
    fn seal_somewhere(&self, protection: Protection, suite: Suite) -> (SealedShard, u64) {
        let (start, before) = self.region();
        let shard = self.seal(protection, suite);
        let (_, after) = self.region();
        let mut granules = before.chunks(256).zip(after.chunks(256));
        let at = granules.position(|(before, after)| before != after).unwrap();
        (shard, start + 256 * u64::try_from(at).unwrap())
    }

    fn flip(&self, address: u64) {
        Sim::flip_bit(self.ordinals[0], address, 3);
    }

    fn finish(self) {
        drop(self.manager);
        drop(self.devices);
        for ordinal in self.ordinals {
            Sim::assert_clean(ordinal);
            Sim::retire_device(ordinal);
        }
    }
}

const FORMS: [(Protection, Suite); 3] = [
    (Protection::Authenticated, Suite::Aes256Gcm),
    (Protection::Encrypted, Suite::Aes256Gcm),
    (Protection::Encrypted, Suite::ChaCha20Poly1305),
];

#[test]
fn the_card_checks_what_lies_there_and_says_so() {
    for compute in [Compute::Checks, Compute::Card] {
        let machine = Carded::new(compute);
        let manager = &machine.manager;
        for (protection, suite) in FORMS {
            let shard = machine.seal(protection, suite);
            assert_eq!(*manager.unseal_model(&shard).unwrap(), content());
            let by = |level| manager.verify(&shard, level).unwrap().checked;
            let open = protection == Protection::Authenticated;
            let ciphers = compute == Compute::Card && suite == Suite::ChaCha20Poly1305;
            let proof = if open || ciphers { BY_PROOF } else { Some(Checked::BY_HOST) };
            assert_eq!(by(Verify::Segments), proof, "{protection:?} {suite:?} {compute:?}");
            by(Verify::Fingerprint);
            assert_eq!(by(Verify::Fingerprint), BY_FINGERPRINT);
            let moved = manager.migrate_shard(&shard, 1).unwrap();
            let changed = if open {
                manager.close_resident(&moved).unwrap()
            } else {
                manager.open_resident(&moved).unwrap()
            };
            assert_eq!(*manager.unseal_model(&changed).unwrap(), content());
            manager.free_shard(&changed).unwrap();
        }
        assert!(machine.figures(0).used && machine.figures(1).used);
        machine.finish();
    }
}

#[test]
fn a_flipped_bit_is_found_where_it_is_at_every_level() {
    let machine = Carded::new(Compute::Card);
    let manager = &machine.manager;
    for (protection, suite) in FORMS {
        for level in [Verify::Fingerprint, Verify::Segments, Verify::Full] {
            let (shard, at) = machine.seal_somewhere(protection, suite);
            assert!(manager.verify(&shard, Verify::Fingerprint).unwrap().sound);
            machine.flip(at + 3 * 4096 + 17);
            let verdict = manager.verify(&shard, level).unwrap();
            let altered: Vec<_> = verdict.altered.iter().map(|span| span.segment).collect();
            assert_eq!(altered, [3], "{protection:?} {suite:?} {level:?}");
            manager.free_shard(&shard).unwrap();
        }
        let (shard, at) = machine.seal_somewhere(protection, suite);
        let mut cursor = ScrubCursor::new();
        let mut pass = || {
            let step = manager.scrub_step(&mut cursor, ByteLen::MIB);
            assert_eq!(step.errors, 0, "{:?}", step.error);
            step.altered
        };
        assert_eq!(pass().len() + pass().len(), 0);
        machine.flip(at + 4096);
        let altered = [pass(), pass()].concat();
        assert!(altered == [shard.shard_id.clone()], "{altered:?}");
        manager.free_shard(&shard).unwrap();
    }
    machine.finish();
}

/// After a reset the kernels are loaded anew, and what came back is checked by them.
#[test]
fn kernels_come_back_after_a_reset() {
    let machine = Carded::new(Compute::Checks);
    let manager = &machine.manager;
    let shard = machine.seal(Protection::Authenticated, Suite::Aes256Gcm);
    let _backup = manager.back_up(&shard).unwrap();
    let report = manager.reset_gpu(0, ResetOptions::new().force()).unwrap();
    assert_eq!(report.restored.len(), 1);
    assert!(manager.wait_for_kernels(0, WAIT).unwrap());
    let shard = &report.restored[0];
    assert_eq!(manager.verify(shard, Verify::Full).unwrap().checked, BY_PROOF);
    assert_eq!(*manager.unseal_model(shard).unwrap(), content());
    machine.finish();
}
