//! From a store to a device and back to health: a shard that was loaded is altered in device memory, found,
//! and repaired from the store it came from.

use vram_residency::{
    ByteLen, ImportRequest, KeyRing, Protection, RepairOptions, ScrubCursor, SealError, SealKey,
    SealParams, SegmentSize, Verify, VramError,
};
use vram_store::{Part, Pull, Push, Store, StoreOptions, Wanted};
use vram_test_rigs::{Rig, SEGMENT, content};

const MODEL: &str = "m";
const LEN: usize = 9 * SEGMENT + 5;
/// Segments that are altered: the first, one between, and the last, which is short.
const ALTERED: [usize; 3] = [0, 4, 9];

/// Pushes a model to an empty store, loads it, alters it on the device, and repairs it: by the content at
/// any position, and by an image that was pulled. In both protections.
pub fn an_alteration_is_found_and_repaired_from(store: &Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model");
    let bytes = content(LEN, 3);
    std::fs::write(&file, &bytes).expect("a file");
    // The key of a rig's manager.
    let key = SealKey::from_bytes(&[7; 32]);
    let keys = KeyRing::new(SealKey::from_bytes(&[7; 32]));
    for (revision, protection) in [(1, Protection::Encrypted), (2, Protection::Authenticated)] {
        let push = Push {
            key: &key,
            model: MODEL,
            revision,
            context: b"",
            files: vec![file.clone()],
            format: "bytes",
            ranks: vec![],
            fleet: None,
            params: SealParams::new().with_protection(protection).with_segment(SegmentSize::MIN),
            plaintext: protection == Protection::Authenticated,
            created: "2026-11-26T11:40:00Z".into(),
            mirrors: vec![],
        };
        let pushed = store.push(&push, &StoreOptions::new()).expect("pushed");
        let wanted = Wanted { model: MODEL, revision, pin: Some(&pushed.id) };
        let manifest = store.manifest(&wanted, &keys, &StoreOptions::new()).expect("found");
        let pull = Pull::new(&manifest, &keys, b"", store);

        let rig = Rig::new(&[1 << 16]);
        let request = || ImportRequest::new(MODEL, 0).protection(protection);
        let admitted = pull.load(0, altered, |reader| rig.manager.import(request(), reader));
        let shard = admitted.expect("loaded");
        let start = rig.written_at(0);
        let alter = || {
            for segment in ALTERED {
                rig.flip(0, start + (segment * SEGMENT) as u64 + 3, 5);
            }
        };
        let quarantined =
            || matches!(rig.manager.unseal_model(&shard), Err(VramError::Quarantined { .. }));
        let is_whole = |what: &str| {
            let verdict = rig.manager.verify(&shard, Verify::Full).expect("verified");
            assert!(verdict.sound, "{protection:?}, {what}");
            let found = rig.manager.unseal_model(&shard).expect("unsealed");
            assert!(found == bytes, "{protection:?}, {what}");
        };
        is_whole("loaded");

        // A scrubber finds it, and the content in the store mends it, segment by segment.
        alter();
        let step = rig.manager.scrub_step(&mut ScrubCursor::new(), ByteLen::GIB);
        assert_eq!(step.altered.len(), 1, "{protection:?}: {step:?}");
        assert!(quarantined(), "{protection:?}: what was found altered is not served");
        let source = pull.content(0).expect("record and table");
        let report = rig.manager.repair_from(&shard, source, RepairOptions::new());
        let report = report.expect("repaired from the store");
        assert!(report.was_altered, "{protection:?}");
        assert_eq!(report.segments, ALTERED.map(|segment| segment as u64), "{protection:?}");
        is_whole("repaired from the store");

        // A verification finds it, and the image, pulled again, mends it.
        alter();
        assert!(!rig.manager.verify(&shard, Verify::Segments).expect("verified").sound);
        assert!(quarantined(), "{protection:?}");
        let images = pull.to_folder(&folder.path().join(format!("{revision}"))).expect("pulled");
        let report = rig.manager.repair_from_image(&shard, images[0].path(), RepairOptions::new());
        let report = report.expect("repaired from the image");
        assert_eq!(report.segments, ALTERED.map(|segment| segment as u64), "{protection:?}");
        is_whole("repaired from the image");

        // The content of another revision has other bytes, and is refused.
        alter();
        assert!(!rig.manager.verify(&shard, Verify::Segments).expect("verified").sound);
        let mut other = bytes.clone();
        other[LEN - 1] ^= 1;
        std::fs::write(&file, &other).expect("a file");
        let another = Push { revision: revision + 10, files: vec![file.clone()], ..push };
        let pushed = store.push(&another, &StoreOptions::new()).expect("pushed");
        let wanted = Wanted { model: MODEL, revision: revision + 10, pin: Some(&pushed.id) };
        let manifest = store.manifest(&wanted, &keys, &StoreOptions::new()).expect("found");
        let another = Pull::new(&manifest, &keys, b"", store);
        let source = another.content(0).expect("record and table");
        let refused = rig.manager.repair_from(&shard, source, RepairOptions::new());
        assert!(matches!(refused, Err(VramError::DigestMismatch { .. })), "{protection:?}");
        assert!(quarantined(), "{protection:?}");
        std::fs::write(&file, &bytes).expect("a file");
    }
}

/// The part of an image that an importer's error is about.
#[must_use]
pub fn altered(error: &VramError) -> Option<Part> {
    let seal: &SealError = match error {
        VramError::Seal(seal) => seal,
        VramError::Image { source, .. } => source,
        _ => return None,
    };
    Part::altered(seal)
}
