//! Sources that change while they are sealed: what is encrypted is what was hashed, or nothing is.
//!
//! Method: a slice is changed under the seal, as a mapping of a file changes when another process
//! writes the file: the kernel writes it, through `/proc/self/mem`. At the end, the content that comes
//! back is compared with the digest that the manager vouches for, and no synthetic IV may stand with
//! two ciphertexts.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use vram_gpu::fault::{Action, Hook, Op, When};
use vram_residency::{
    ByteLen, ContentHasher, HashKind, Protection, ReaderSource, SealOptions, SealRequest,
    SealedShard, SegmentSize, SivScope, SliceSource, Source, SourceError, Threads, Verify,
    VramError, VramManager,
};
use vram_seal::ImageLayout;
use vram_test_rigs::{ActingSource, Rig, SEGMENT, content};

/// Scope Shard, scope Segment, and Authenticated.
fn requests() -> [SealRequest; 3] {
    let base = SealRequest::new("model", 0);
    let authenticated = base.clone().protection(Protection::Authenticated);
    [base.clone().scope(SivScope::Shard), base.scope(SivScope::Segment), authenticated]
}

/// Bytes that are lent as a slice, and that the kernel writes meanwhile.
struct Mapping {
    bytes: Vec<u8>,
    memory: File,
}

impl Mapping {
    fn new(bytes: Vec<u8>) -> Arc<Self> {
        let memory = File::options().write(true).open("/proc/self/mem").unwrap();
        Arc::new(Self { bytes, memory })
    }

    /// Fills a segment with a byte.
    fn rewrite(&self, segment: usize, byte: u8) {
        let start = self.bytes.as_ptr().addr() + segment * SEGMENT;
        let start = u64::try_from(start).unwrap();
        self.memory.write_all_at(&[byte; SEGMENT], start).unwrap();
    }
}

/// Bytes that any thread may change at any time.
struct Shared(Vec<AtomicU8>);

impl Shared {
    fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().map(AtomicU8::new).collect())
    }

    fn rewrite(&self, segment: usize, byte: u8) {
        for cell in &self.0[segment * SEGMENT..(segment + 1) * SEGMENT] {
            cell.store(byte, Ordering::Relaxed);
        }
    }
}

impl Source for Shared {
    fn len(&self) -> u64 {
        ByteLen::from_usize(self.0.len()).get()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let start = usize::try_from(offset).unwrap();
        for (byte, cell) in target.iter_mut().zip(&self.0[start..]) {
            *byte = cell.load(Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The ciphertext that was seen with each synthetic IV of each segment.
#[derive(Default)]
struct Seen(HashMap<(Vec<u8>, usize), Vec<u8>>);

impl Seen {
    /// A seal of a source that changed is refused, or a shard that is what its digest says.
    fn check(&mut self, manager: &VramManager, outcome: Result<SealedShard, VramError>) -> bool {
        let shard = match outcome {
            Ok(shard) => shard,
            Err(VramError::SourceChanged { .. }) => return false,
            Err(other) => panic!("{other}"),
        };
        let back = manager.unseal_model(&shard).unwrap();
        let digest = ContentHasher::digest(HashKind::Blake3, &back);
        assert_eq!(manager.content_digest(&shard).unwrap(), digest, "not the content's digest");
        assert!(manager.verify(&shard, Verify::Full).unwrap().sound);
        manager.ensure_intact(&shard).unwrap();

        let mut image = Vec::new();
        let report = manager.export(&shard, &mut image).unwrap();
        let layout = ImageLayout::for_fields(&report.fields);
        let data = &image[usize::try_from(layout.data_offset()).unwrap()..];
        let entry = if report.fields.scope() == Some(SivScope::Shard) { 16 } else { 48 };
        let table = &image[256..256 + entry * data.len().div_ceil(SEGMENT)];
        for (index, (entry, bytes)) in table.chunks(entry).zip(data.chunks(SEGMENT)).enumerate() {
            let siv = if entry.len() == 16 { &report.record[128..160] } else { &entry[..32] };
            let before = self.0.insert((siv.to_vec(), index), bytes.to_vec());
            let same = before.is_none_or(|before| before == bytes);
            assert!(same, "segment {index}: two plaintexts under one key and nonce");
        }
        manager.free_shard(&shard).unwrap();
        true
    }
}

/// P10: at every write to the device, another part of the slice is rewritten.
#[test]
fn a_slice_that_changes_at_every_write_is_refused_or_sealed_as_what_was_read() {
    const SEGMENTS: usize = 12;
    for request in requests() {
        // The first and the last bytes that are sealed, from either end, and those between.
        for at in [0, 1, 5, SEGMENTS - 2, SEGMENTS - 1] {
            let rig = Rig::new(&[1 << 17]);
            let mapping = Mapping::new(content(SEGMENTS * SEGMENT, 1));
            let mut seen = Seen::default();
            let before = rig.manager.seal(request.clone(), &mapping.bytes);
            assert!(seen.check(&rig.manager, before), "nothing has changed yet");
            let (writes, target) = (AtomicU64::new(0), Arc::clone(&mapping));
            let hook = Hook::new(move || {
                let byte = writes.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0];
                target.rewrite(at, byte);
            });
            rig.devices[0].add(Op::QueueWrite, When::From(1), Action::Run(hook)).unwrap();
            for _ in 0..4 {
                let outcome = rig.manager.seal(request.clone(), &mapping.bytes);
                seen.check(&rig.manager, outcome);
            }
            rig.clear();
            rig.settle(true);
        }
    }
}

/// P10: the same for the call that has no options, in the middle of the pass.
#[test]
fn a_model_whose_slice_changes_has_the_digest_of_what_comes_back() {
    let rig = Rig::new(&[1 << 17]);
    let mapping = Mapping::new(content(8 * SEGMENT, 2));
    let target = Arc::clone(&mapping);
    let hook = Hook::new(move || (0..8).for_each(|segment| target.rewrite(segment, 0xEE)));
    rig.devices[0].add(Op::QueueWrite, When::Nth(1), Action::Run(hook)).unwrap();
    let shard = rig.manager.seal_model("model", 0, &mapping.bytes).unwrap();
    let back = rig.manager.unseal_model(&shard).unwrap();
    assert_eq!(back[7 * SEGMENT..], [0xEE; SEGMENT], "the slice did change meanwhile");
    assert_ne!(back, mapping.bytes);
    assert!(Seen::default().check(&rig.manager, Ok(shard)));
}

/// P10: a thread writes all the time, in bursts, while slices and sources are sealed.
#[test]
fn whatever_a_thread_writes_meanwhile_no_key_and_nonce_meets_two_plaintexts() {
    const SEGMENTS: usize = 64;
    let manager = VramManager::builder()
        .host_device(ByteLen::from_mib_saturating(4))
        .segment_size(SegmentSize::MIN)
        .threads(Threads::exactly(2))
        .build()
        .unwrap();
    let mapping = Mapping::new(content(SEGMENTS * SEGMENT, 3));
    let shared = Shared::new(&mapping.bytes);
    let (stop, seen) = (AtomicBool::new(false), &mut Seen::default());
    let (mut sealed, mut refused) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Few contents, so that equal synthetic IVs come again.
            for round in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let [byte, ..] = (round % 3).to_le_bytes();
                for segment in [0, 1, SEGMENTS / 2, SEGMENTS - 1] {
                    mapping.rewrite(segment, byte);
                    shared.rewrite(segment, byte);
                }
                if round % 8 == 0 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        let _stop = StopAtEnd(&stop);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            for request in requests() {
                let slice = manager.seal(request.clone(), &mapping.bytes);
                let source = manager.seal_from(request, &shared, SealOptions::new());
                for outcome in [slice, source] {
                    if seen.check(&manager, outcome) { sealed += 1 } else { refused += 1 }
                }
            }
        }
    });
    println!("{sealed} sealed, {refused} refused");
    assert!(sealed > 0 && manager.shards().is_empty());
}

/// Stops the writing thread, also if the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_source_is_read_exactly_once_unless_scope_shard_is_asked_for() {
    let rig = Rig::new(&[1 << 17]);
    for len in [0, 1, SEGMENT, 9 * SEGMENT + 77] {
        let read = AtomicU64::new(0);
        let source = ActingSource::new(content(len, 4), |_offset, target: &mut [u8]| {
            read.fetch_add(ByteLen::from_usize(target.len()).get(), Ordering::Relaxed);
            Ok(())
        });
        let len = ByteLen::from_usize(len).get();
        let base = SealRequest::new("model", 0);
        for (request, times) in [
            (base.clone(), 1),
            (base.clone().scope(SivScope::Segment), 1),
            (base.clone().protection(Protection::Authenticated), 1),
            (base.clone().scope(SivScope::Shard), 2),
        ] {
            read.store(0, Ordering::Relaxed);
            let shard = rig.manager.seal_from(request, &source, SealOptions::new()).unwrap();
            assert_eq!(read.load(Ordering::Relaxed), times * len);
            rig.manager.free_shard(&shard).unwrap();
        }
    }
}

/// G2: the default scope is the same for every kind of source, so the sealed bytes are too.
#[test]
fn by_default_every_source_and_count_of_threads_gives_the_same_sealed_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    let bytes = content(9 * SEGMENT + 77, 5);
    std::fs::write(&path, &bytes).unwrap();
    let mut all = Vec::new();
    for count in [1, 2, 5] {
        let rig = Rig::with(&[1 << 18], |builder| builder.threads(Threads::exactly(count)));
        let reader = ReaderSource::new(&bytes[..], ByteLen::from_usize(bytes.len()).get());
        let file = vram_residency::FileSource::open(&path).unwrap();
        let slice = SliceSource::new(&bytes);
        let sources: [&dyn Source; 3] = [&reader, &file, &slice];
        let base = SealRequest::new("model", 0);
        let mut shards = vec![rig.manager.seal_model("model", 0, &bytes).unwrap()];
        for source in sources {
            let shard = rig.manager.seal_from(base.clone(), source, SealOptions::new());
            shards.push(shard.unwrap());
        }
        for shard in shards {
            let mut image = Vec::new();
            let report = rig.manager.export(&shard, &mut image).unwrap();
            assert_eq!(report.fields.scope(), Some(SivScope::Segment));
            all.push((shard.sealed_data, image));
        }
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}
