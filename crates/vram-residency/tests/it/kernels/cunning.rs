//! Kernels, and writers beside them, that do the one wrong thing at the one wrong moment.

use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::Mutex;

use vram_gpu::kernels::{
    CipherSpan, FingerprintKey, Fingerprints, HashSpan, KernelError, Kernels, NoKernels, Unfit,
};
use vram_gpu::{Device, DeviceInfo, DeviceMemory, DeviceState, GpuError, MemoryInfo, Staging};
use vram_residency::{
    CancelToken, Checked, Evidence, ReadBack, ReaderSource, ScrubCursor, SealOptions, Site, Verify,
    VramManager, WipePolicy,
};

use super::*;

/// What happens in the next calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Trick {
    Nothing,
    /// Bytes are altered while a fingerprint is computed, and as before right after.
    BesideFingerprints,
    /// Bytes are altered before a fingerprint is computed, and stay so.
    BeforeFingerprints,
    /// Fingerprints are what the first one was, whatever lies there.
    DeadFingerprints,
    /// A byte of plaintext is altered after it was hashed, before it is encrypted.
    BeforeEncrypting,
    /// The ciphers are not loaded.
    NoCiphers,
    /// Somebody cancels while hashes are computed, which then do not apply.
    Cancelled,
    /// Hashes are all the same.
    DeadHashes,
    /// Hashes do not apply, after the kernels were found to be dead beside them.
    UnfitBesideDistrust,
}

struct Tricks {
    now: AtomicU32,
    dead: Mutex<Option<Fingerprints>>,
    token: CancelToken,
    /// Looks once more from within a launch.
    beside: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl core::fmt::Debug for Tricks {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Tricks")
    }
}

impl Tricks {
    fn set(&self, trick: Trick) {
        self.now.store(trick as u32, Ordering::SeqCst);
    }

    fn is(&self, trick: Trick) -> bool {
        self.now.load(Ordering::SeqCst) == trick as u32
    }
}

#[derive(Debug)]
struct Tricky(Arc<dyn Kernels>, Arc<Tricks>);

fn alter(memory: &dyn DeviceMemory, range: vram_alloc::DeviceRange) {
    let mut bytes = vec![0; usize::try_from(range.len().get()).unwrap()];
    memory.read(range, &mut bytes).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    memory.write(range, &bytes).unwrap();
}

fn unfit(memory: &dyn DeviceMemory) -> KernelError {
    KernelError::Unfit { gpu: memory.gpu(), why: Unfit::OtherMemory }
}

impl Kernels for Tricky {
    fn site(&self) -> Site {
        Site::Card
    }

    fn hash(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[HashSpan],
    ) -> Result<Vec<[u8; 32]>, KernelError> {
        if self.1.is(Trick::Cancelled) {
            self.1.token.cancel();
            return Err(unfit(memory));
        }
        if self.1.is(Trick::UnfitBesideDistrust) {
            self.1.set(Trick::DeadHashes);
            if let Some(beside) = self.1.beside.lock().unwrap().take() {
                std::thread::spawn(beside).join().unwrap();
            }
            return Err(unfit(memory));
        }
        let computed = self.0.hash(memory, spans)?;
        let dead = self.1.is(Trick::DeadHashes);
        Ok(if dead { vec![computed[0]; computed.len()] } else { computed })
    }

    fn fingerprint(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[vram_alloc::DeviceRange],
        key: &FingerprintKey,
        renewed: Option<&FingerprintKey>,
    ) -> Result<Vec<Fingerprints>, KernelError> {
        let compute = || self.0.fingerprint(memory, spans, key, renewed);
        if self.1.is(Trick::BesideFingerprints) {
            alter(memory, spans[0]);
            let computed = compute();
            alter(memory, spans[0]);
            return computed;
        }
        if self.1.is(Trick::BeforeFingerprints) {
            self.1.set(Trick::Nothing);
            alter(memory, spans[0]);
        }
        if self.1.is(Trick::DeadFingerprints) {
            let mut dead = self.1.dead.lock().unwrap();
            let computed = compute()?;
            let mut first = *dead.get_or_insert(computed[0]);
            first.renewed = Some(first.value);
            return Ok(vec![first; spans.len()]);
        }
        compute()
    }

    fn tags(
        &self,
        memory: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        if self.1.is(Trick::NoCiphers) {
            Err(unfit(memory))
        } else {
            self.0.tags(memory, spans, keys)
        }
    }

    fn open(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
        tags: &[[u8; 16]],
    ) -> Result<Vec<bool>, KernelError> {
        self.0.open(source, target, spans, keys, tags)
    }

    fn seal(
        &self,
        source: &dyn DeviceMemory,
        target: &dyn DeviceMemory,
        spans: &[CipherSpan],
        keys: &[[u8; 32]],
    ) -> Result<Vec<[u8; 16]>, KernelError> {
        if self.1.is(Trick::NoCiphers) {
            return Err(unfit(source));
        }
        if self.1.is(Trick::BeforeEncrypting) {
            alter(source, spans[0].source);
        }
        self.0.seal(source, target, spans, keys)
    }
}

#[derive(Debug)]
struct Card(HostDevice, Arc<Tricks>);

impl Device for Card {
    fn info(&self) -> &DeviceInfo {
        self.0.info()
    }

    fn memory(&self) -> Result<MemoryInfo, GpuError> {
        self.0.memory()
    }

    fn allocate(&self, len: ByteLen) -> Result<Box<dyn DeviceMemory>, GpuError> {
        self.0.allocate(len)
    }

    fn staging(&self, len: ByteLen) -> Result<Staging, GpuError> {
        self.0.staging(len)
    }

    fn state(&self) -> DeviceState {
        self.0.state()
    }

    fn reset(&self) -> Result<(), GpuError> {
        self.0.reset()
    }

    fn can_copy_from_peer(&self, _other: &dyn Device) -> bool {
        false
    }

    fn kernels(&self) -> Result<Arc<dyn Kernels>, NoKernels> {
        Ok(Arc::new(Tricky(self.0.kernels()?, Arc::clone(&self.1))))
    }

    fn backing(&self) -> &dyn Device {
        self.0.backing()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn machine(compute: Compute, read_back: ReadBack) -> (Arc<VramManager>, Arc<Tricks>) {
    let tricks = Arc::new(Tricks {
        now: AtomicU32::new(0),
        dead: Mutex::default(),
        token: CancelToken::new(),
        beside: Mutex::default(),
    });
    let mut builder = VramManager::builder()
        .segment_size(vram_residency::SegmentSize::MIN)
        .compute(compute)
        .read_back(read_back);
    for index in 0..2 {
        let host = HostDevice::builder(GpuIndex::new(index), ByteLen::new(64 << 20));
        let host = host.kernels().build().unwrap();
        builder = builder.device(Arc::new(Card(host, Arc::clone(&tricks))));
    }
    (Arc::new(builder.build().unwrap()), tricks)
}

fn sealed_request() -> SealRequest {
    request(Protection::Encrypted, Suite::default())
}

/// A shard that is at a multiple of 16 MiB, where canaries once were looked for.
#[test]
fn sound_kernels_are_never_taken_for_dead() {
    let (manager, _) = machine(Compute::Checks, ReadBack::None);
    let open = request(Protection::Authenticated, Suite::default());
    let open = open.read_back(ReadBack::None);
    let shard = manager.seal(open, &content((33 << 20) + 5)).unwrap();
    for offset in [16 << 20, 32 << 20, 0, 16 << 20] {
        let verdict = manager.verify(&shard, Verify::Range { offset, length: 1 }).unwrap();
        let site = verdict.checked.map(|checked| checked.site);
        assert_eq!((verdict.sound, site), (true, Some(Site::Card)), "{offset}");
    }
}

#[test]
fn no_fingerprint_is_kept_of_bytes_that_nobody_verified() {
    for read_back in [ReadBack::Default, ReadBack::None] {
        let (manager, tricks) = machine(Compute::Checks, read_back);
        let shard = manager.seal(sealed_request(), &content(9 * SEGMENT)).unwrap();
        tricks.set(Trick::BesideFingerprints);
        assert!(manager.verify(&shard, Verify::Fingerprint).unwrap().sound);
        tricks.set(Trick::BeforeFingerprints);
        let verdict = manager.verify(&shard, Verify::Fingerprint).unwrap();
        assert!(!verdict.sound, "{read_back:?}: {verdict}");
    }
}

#[test]
fn fingerprints_that_are_not_computed_hide_nothing() {
    for read_back in [ReadBack::Default, ReadBack::None] {
        let (manager, tricks) = machine(Compute::Checks, read_back);
        let shard = manager.seal(sealed_request(), &content(9 * SEGMENT)).unwrap();
        tricks.set(Trick::DeadFingerprints);
        for _ in 0..3 {
            assert!(manager.verify(&shard, Verify::Fingerprint).unwrap().sound);
        }
        tricks.set(Trick::BeforeFingerprints);
        let first = manager.verify(&shard, Verify::Fingerprint).unwrap();
        assert!(!first.sound, "{read_back:?}: {first}");
    }
    // Of bytes that were altered before, by kernels that are dead since.
    let (manager, tricks) = machine(Compute::Checks, ReadBack::Default);
    let shard = manager.seal(sealed_request(), &content(9 * SEGMENT)).unwrap();
    tricks.set(Trick::DeadFingerprints);
    assert!(manager.verify(&shard, Verify::Fingerprint).unwrap().sound);
    let mut cursor = ScrubCursor::new();
    let step = manager.scrub_step(&mut cursor, ByteLen::MIB);
    assert_eq!((step.altered.len(), step.errors), (0, 0));
    assert!(manager.metrics().gpus[0].kernels.disagreements > 0);
}

/// What is encrypted is opened and hashed before it counts.
#[test]
fn other_bytes_than_were_hashed_are_never_sealed() {
    let chacha = || request(Protection::Encrypted, Suite::ChaCha20Poly1305);
    for read_back in [ReadBack::Default, ReadBack::Full] {
        let (manager, tricks) = machine(Compute::Card, read_back);
        tricks.set(Trick::BeforeEncrypting);
        let refused = manager.seal(chacha(), &content(9 * SEGMENT)).unwrap_err();
        assert_eq!(refused.code(), "write-not-kept");
        assert_eq!(manager.capacity(0).unwrap().used, ByteLen::ZERO);
        tricks.set(Trick::Nothing);
        let shard = manager.seal(chacha(), &content(9 * SEGMENT)).unwrap();
        let key = vram_residency::SealKey::from_bytes(&[9; 32]);
        let id = key.id();
        manager.add_key(key).unwrap();
        tricks.set(Trick::BeforeEncrypting);
        // The host does it again, from the old copy, which still lies there.
        let anew = manager.reseal_shard(&shard, &id).unwrap();
        tricks.set(Trick::Nothing);
        assert_eq!(*manager.unseal_model(&anew).unwrap(), content(9 * SEGMENT));
        assert!(manager.verify(&anew, Verify::Full).unwrap().content);
    }
}

#[test]
fn where_ciphers_are_not_loaded_the_host_seals() {
    let (manager, tricks) = machine(Compute::Card, ReadBack::Default);
    tricks.set(Trick::NoCiphers);
    let chacha = request(Protection::Encrypted, Suite::ChaCha20Poly1305);
    let shard = manager.seal(chacha, &content(9 * SEGMENT)).unwrap();
    assert_eq!(*manager.unseal_model(&shard).unwrap(), content(9 * SEGMENT));
    let verdict = manager.verify(&shard, Verify::Segments).unwrap();
    assert_eq!((verdict.sound, verdict.checked), (true, Some(Checked::BY_HOST)));
}

/// Kernels are found dead by one look while the launch of another is under way.
#[test]
fn a_launch_that_was_under_way_lifts_no_distrust() {
    let (manager, tricks) = machine(Compute::Checks, ReadBack::None);
    let open = || request(Protection::Authenticated, Suite::default());
    let shards = [0, 1].map(|_| manager.seal(open(), &content(3 * SEGMENT)).unwrap());
    let other = (Arc::clone(&manager), shards[1].clone());
    let beside = Box::new(move || {
        let (manager, shard) = other;
        let verdict = manager.verify(&shard, Verify::Segments).unwrap();
        assert_eq!(verdict.checked, Some(Checked::BY_HOST), "they are dead");
    });
    *tricks.beside.lock().unwrap() = Some(beside);
    tricks.set(Trick::UnfitBesideDistrust);
    assert!(manager.verify(&shards[0], Verify::Segments).unwrap().sound);
    tricks.set(Trick::Nothing);
    let verdict = manager.verify(&shards[0], Verify::Segments).unwrap();
    assert_eq!(verdict.checked, Some(Checked::BY_HOST), "until a reset");
    assert!(!manager.metrics().gpus[0].kernels.used);
}

#[test]
fn an_open_shard_arrives_by_proof_whatever_was_looked_at_before() {
    let (manager, _) = machine(Compute::Checks, ReadBack::Default);
    let open = request(Protection::Authenticated, Suite::default());
    let shard = manager.seal(open, &content(9 * SEGMENT)).unwrap();
    for _ in 0..2 {
        assert!(manager.verify(&shard, Verify::Fingerprint).unwrap().sound);
    }
    let before = manager.report().shards[0].clone();
    assert_eq!(before.last_checked.unwrap().evidence, Evidence::Fingerprint);
    assert!(before.last_proof.is_some() && before.last_proof <= before.last_verified);
    manager.migrate_shard(&shard, 1).unwrap();
    let after = &manager.report().shards[0];
    let by = Checked { evidence: Evidence::Proof, site: Site::Card };
    assert_eq!((after.last_checked, after.last_proof), (Some(by), after.last_verified));
}

#[test]
fn plaintext_is_never_left_in_memory_that_nobody_wipes() {
    let tricks = machine(Compute::Card, ReadBack::Default).1;
    let host = HostDevice::builder(GpuIndex::new(0), ByteLen::MIB).kernels().build().unwrap();
    let manager = VramManager::builder()
        .device(Arc::new(Card(host, Arc::clone(&tricks))))
        .compute(Compute::Card)
        .wipe(WipePolicy::Never)
        .build()
        .unwrap();
    tricks.set(Trick::NoCiphers);
    let chacha = request(Protection::Encrypted, Suite::ChaCha20Poly1305);
    manager.seal(chacha, &content(9 * SEGMENT)).unwrap();
    assert_eq!(manager.metrics().gpus[0].kernels.hashed, ByteLen::ZERO, "the host sealed");
}

#[test]
fn whoever_cancels_after_the_copy_is_heard() {
    let (manager, tricks) = machine(Compute::Card, ReadBack::Default);
    tricks.set(Trick::Cancelled);
    let bytes = content(3 << 20);
    let source = ReaderSource::new(&bytes[..], u64::try_from(bytes.len()).unwrap());
    let chacha = request(Protection::Encrypted, Suite::ChaCha20Poly1305);
    let options = SealOptions::new().cancel(tricks.token.clone());
    let error = manager.seal_from(chacha, source, options).unwrap_err();
    assert_eq!(error.code(), "cancelled");
    assert_eq!(manager.capacity(0).unwrap().used, ByteLen::ZERO);
}
