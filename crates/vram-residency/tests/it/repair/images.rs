//! Repair from a sealed image of the same content, under any key of the ring.

use std::path::Path;

use vram_residency::{
    ExportOptions, KeyRing, Protection, RepairOptions, SealError, SealKey, SealRequest,
    SegmentSize, VramError, VramManager,
};

use super::{damaged, is_whole, quarantined, requests};
use vram_test_rigs::{Rig, SEGMENT, content};

const LEN: usize = 5 * SEGMENT + 9;

/// The image of this content, sealed by another party.
fn image(path: &Path, key: u8, request: SealRequest, bytes: &[u8], segment: SegmentSize) {
    let manager = VramManager::builder()
        .host_device(vram_residency::ByteLen::MIB)
        .key_ring(KeyRing::new(SealKey::from_bytes(&[key; 32])))
        .segment_size(segment)
        .build()
        .unwrap();
    let shard = manager.seal(request, bytes).unwrap();
    let options = ExportOptions::new().plaintext();
    manager.export_to(&shard, path, options).unwrap();
}

#[test]
fn the_image_of_the_same_content_repairs_whatever_key_and_scope_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = content(LEN, 1);
    for (number, request) in requests().into_iter().enumerate() {
        for key in [7, 9] {
            let path = folder.path().join(format!("{number}-{key}"));
            image(&path, key, request.clone(), &bytes, SegmentSize::MIN);
            for resident in requests() {
                let rig = Rig::new(&[1 << 16]);
                rig.manager.add_key(SealKey::from_bytes(&[9; 32])).unwrap();
                let shard = damaged(&rig, resident, &bytes, &[0, 5]);
                let report =
                    rig.manager.repair_from_image(&shard, &path, RepairOptions::new()).unwrap();
                assert_eq!(report.segments, [0, 5]);
                is_whole(&rig, &shard, &bytes, "from an image");
            }
        }
    }
}

#[test]
fn an_image_of_something_else_repairs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bytes = content(LEN, 2);
    let request = requests()[0].clone().protection(Protection::Encrypted);
    image(&path("key"), 8, request.clone(), &bytes, SegmentSize::MIN);
    image(&path("content"), 7, request.clone(), &content(LEN, 3), SegmentSize::MIN);
    image(&path("length"), 7, request.clone(), &bytes[1..], SegmentSize::MIN);
    let other = SealRequest::new("other", 0).context(b"tenant").revision(4);
    image(&path("model"), 7, other, &bytes, SegmentSize::MIN);
    image(&path("revision"), 7, request.clone().revision(5), &bytes, SegmentSize::MIN);
    let large = SegmentSize::from_log2(13).unwrap();
    image(&path("segments"), 7, request.clone(), &bytes, large);
    image(&path("altered"), 7, request.clone(), &bytes, SegmentSize::MIN);
    let mut altered = std::fs::read(path("altered")).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    std::fs::write(path("altered"), altered).unwrap();
    image(&path("cut"), 7, request.clone(), &bytes, SegmentSize::MIN);
    let whole = std::fs::read(path("cut")).unwrap();
    std::fs::write(path("cut"), &whole[..whole.len() - 1]).unwrap();

    let rig = Rig::new(&[1 << 16]);
    let shard = damaged(&rig, request, &bytes, &[0, 5]);
    let region = rig.region(0);
    for (name, code) in [
        ("key", "unknown-key"),
        ("content", "digest-mismatch"),
        ("length", "wrong-length"),
        ("model", "context-mismatch"),
        ("revision", "context-mismatch"),
        ("segments", "config"),
        ("altered", "segment-mismatch"),
        ("cut", "wrong-length"),
        ("not there", "io"),
    ] {
        let refused = rig.manager.repair_from_image(&shard, path(name), RepairOptions::new());
        assert_eq!(refused.unwrap_err().code(), code, "{name}");
        assert!(quarantined(&rig, &shard), "{name}");
        assert_eq!(rig.region(0), region, "{name}");
    }
    let named = rig.manager.repair_from_image(&shard, path("altered"), RepairOptions::new());
    match named {
        Err(VramError::Image { path, source }) => {
            assert!(path.ends_with("altered"));
            assert_eq!(*source, SealError::SegmentMismatch { segment: 5 });
        }
        other => panic!("{other:?}"),
    }
    std::fs::write(path("cut"), whole).unwrap();
    rig.manager.repair_from_image(&shard, path("cut"), RepairOptions::new()).unwrap();
    is_whole(&rig, &shard, &bytes, "by its own image");
}
