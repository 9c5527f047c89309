//! The work after which memory is searched, done in a child process.

use core::hint::black_box;
use std::fs::{self, File};
use std::path::Path;

use vram_residency::{
    ByteLen, Expected, ExportOptions, FileSource, ImageOptions, ImportRequest, KeyRing, KeySource,
    Overwrite, Protection, SealContext, SealKey, SealOptions, SealParams, SealRequest, SegmentSize,
    SivScope, Source, SourceError, Verify, VramManager, seal_image, unseal_image, verify_image,
};

use super::{LEN, MASK, MODEL, plaintext};

/// The variable in which a child finds the key, if it is to load it from there.
pub(crate) const KEY: &str = "VRAM_MEMORY_KEY";

/// Loads the key in one of the ways that there are.
fn load(how: &str, folder: &Path, masked: &[u8]) -> SealKey {
    let file = folder.join("key");
    let source = match how {
        "file" => KeySource::File(file),
        "descriptor" => KeySource::Descriptor(File::open(file).unwrap().into()),
        "env" => KeySource::Env(KEY.to_owned()),
        _ => {
            // On the heap, as a caller holds it that wipes it.
            let mut raw: Box<[u8; 32]> = Box::new([0; 32]);
            raw.iter_mut().zip(masked).for_each(|(byte, masked)| *byte = masked ^ MASK);
            let key = match how {
                "bytes" => KeySource::bytes(&raw).load().unwrap(),
                _ => SealKey::from_bytes(&raw),
            };
            black_box(&mut *raw).fill(0);
            black_box(&raw);
            return key;
        }
    };
    source.load().unwrap()
}

fn wiped(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

/// Does `task`: how the key is loaded, and what is done with it. `alive` is called while it is in
/// use.
#[inline(never)]
pub(crate) fn run(task: &str, folder: &Path, masked: &[u8], alive: &dyn Fn()) {
    let (how, what) = task.split_once(':').unwrap();
    let load = || load(how, folder, masked);
    match what {
        "load" => {
            let key = load();
            alive();
            drop(key);
        }
        "images" => images(&load, folder, alive),
        "panic" => panic_halfway(load(), alive),
        _ => manager(load(), folder, alive),
    }
}

fn images(load: &dyn Fn() -> SealKey, folder: &Path, alive: &dyn Fn()) {
    let at = |name: &str| folder.join(name);
    let mut content = plaintext();
    fs::write(at("content"), &content).unwrap();
    wiped(&mut content);
    let (key, ring) = (load(), KeyRing::new(load()));
    let sealed_as = SealContext::new(MODEL).unwrap();
    let options = || ImageOptions::new().overwrite(Overwrite::Replace);
    let expected = Expected::new(MODEL).unwrap();
    for scope in [SivScope::Shard, SivScope::Segment] {
        let params = SealParams::new().with_segment(SegmentSize::MIN).with_scope(scope);
        let source = FileSource::open(at("content")).unwrap();
        let _report =
            seal_image(&key, &sealed_as, params, &source, &at("image"), options()).unwrap();
        let _report =
            unseal_image(&ring, &expected, &at("image"), &at("again"), options()).unwrap();
        assert!(verify_image(&ring, &expected, &at("image"), options()).unwrap().is_sound());
    }
    alive();
}

/// A manager with two GPUs in host memory.
fn built(key: SealKey) -> VramManager {
    let len = ByteLen::new(16 << 20);
    let builder = VramManager::builder().host_device(len).host_device(len);
    builder.key(key).segment_size(SegmentSize::MIN).build().unwrap()
}

/// Every step that seals, opens, moves or signs.
fn manager(key: SealKey, folder: &Path, alive: &dyn Fn()) {
    let manager = built(key);
    let mut content = plaintext();
    let seal = |gpu, protection, scope, content: &[u8]| {
        let request = SealRequest::new(MODEL, gpu).protection(protection).scope(scope);
        manager.seal(request, content).unwrap()
    };
    let first = seal(0, Protection::Encrypted, SivScope::Shard, &content);
    let second = seal(0, Protection::Encrypted, SivScope::Segment, &content);
    let third = seal(1, Protection::Authenticated, SivScope::Shard, &content);
    wiped(&mut content);
    let mut back = vec![0; LEN];
    for shard in [&first, &second, &third] {
        manager.unseal_into(shard, &mut back).unwrap();
        manager.read_into(shard, 12_345, &mut back[..100_000]).unwrap();
        assert!(manager.verify(shard, Verify::Full).unwrap().sound);
    }
    wiped(&mut back);
    let first = manager.open_resident(&first).unwrap();
    let first = manager.close_resident(&first).unwrap();
    let parked = manager.park(&third).unwrap();
    let third = manager.wake(parked, 0).unwrap();
    let first = manager.migrate_shard(&first, 1).unwrap();
    let image = folder.join("image");
    let _report = manager.export_to(&third, &image, ExportOptions::new()).unwrap();
    let _imported = manager.import_from(ImportRequest::new(MODEL, 0), &image).unwrap();
    let _ticket = manager.ticket(&first, [9; 32]).unwrap();
    let other = SealKey::from_bytes(&[0xee; 32]);
    let id = other.id();
    manager.add_key(other).unwrap();
    let first = manager.reseal_shard(&first, &id).unwrap();
    manager.back_up(&first).unwrap();
    alive();
    drop(manager);
}

/// A source that panics in the middle.
struct Panicking<'a>(&'a [u8]);

impl Source for Panicking<'_> {
    fn len(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<(), SourceError> {
        let at = usize::try_from(offset).unwrap();
        if at > LEN / 2 {
            std::panic::panic_any(1_u8);
        }
        target.copy_from_slice(&self.0[at..at + target.len()]);
        Ok(())
    }
}

fn panic_halfway(key: SealKey, alive: &dyn Fn()) {
    let manager = built(key);
    let mut content = plaintext();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        manager.seal_from(SealRequest::new(MODEL, 0), Panicking(&content), SealOptions::new())
    }));
    assert!(outcome.is_err());
    let _ours = std::panic::take_hook();
    wiped(&mut content);
    alive();
}
