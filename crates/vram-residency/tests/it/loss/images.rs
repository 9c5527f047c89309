//! Restoring a shard from the sealed image to which it was exported.

use std::fs;

use vram_residency::{
    ExportOptions, NotRestored, Overwrite, Protection, ResetOptions, SealRequest, Suite, Verify,
    VramError,
};

use vram_test_rigs::content;

use super::{ECC, KINDS, LEN, MODES, is_lost, is_stale, seal, two_gpus};
use vram_residency::device::fault::{Action, Op};

#[test]
fn a_shard_without_a_backup_comes_back_from_its_image() {
    let folder = tempfile::tempdir().unwrap();
    for (run, mode) in (0..).zip(MODES) {
        for (kind, plaintext) in [
            (Protection::Encrypted, false),
            (Protection::Authenticated, false),
            (Protection::Authenticated, true),
        ] {
            let rig = two_gpus(mode);
            let path = folder.path().join(format!("{run}-{kind:?}-{plaintext}"));
            let request = SealRequest::new("model", 0)
                .protection(kind)
                .context(b"tenant")
                .metadata(b"what it is")
                .revision(4)
                .owner("pool-1")
                .priority(2);
            let shard = rig.manager.seal(request, &content(LEN, 1)).unwrap();
            let options = ExportOptions::new();
            let options = if plaintext { options.plaintext() } else { options };
            rig.manager.export_to(&shard, &path, options).unwrap();
            rig.lose(&shard);

            let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
            let [back] = report.restored.as_slice() else { panic!("{mode:?} {kind:?} {report:?}") };
            assert_eq!((&back.shard_id, back.protection), (&shard.shard_id, kind));
            assert_eq!(back.sealed_data, shard.sealed_data, "{kind:?}");
            assert_eq!(rig.manager.unseal_model(back).unwrap(), content(LEN, 1));
            assert!(rig.manager.verify(back, Verify::Full).unwrap().sound);
            let listed = &rig.manager.report().shards[0];
            assert_eq!((listed.owner.as_deref(), listed.priority), (Some("pool-1"), 2));
            assert!(is_stale(rig.manager.unseal_model(&shard)));
            rig.books_agree("restored");

            // The image is still known, and opening or closing the shard works as before.
            let probe = seal(&rig, 0, kind, 3);
            rig.lose(&probe);
            let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
            let back = &report.restored[0];
            let opened = rig.manager.open_resident(back).unwrap();
            let closed = rig.manager.close_resident(&opened).unwrap();
            if kind == Protection::Encrypted {
                assert_eq!(closed.sealed_data, shard.sealed_data);
            }
            assert_eq!(rig.manager.unseal_and_free(&closed).unwrap(), content(LEN, 1));
            rig.is_whole(0);
        }
    }
}

#[test]
fn an_image_that_is_gone_damaged_or_another_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        for what in ["gone", "damaged", "cut", "another", "twin", "garbage"] {
            let rig = two_gpus(MODES[0]);
            let path = folder.path().join(format!("{kind:?}-{what}"));
            let shard = seal(&rig, 0, kind, 1);
            rig.manager.export_to(&shard, &path, ExportOptions::new()).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            match what {
                "gone" => fs::remove_file(&path).unwrap(),
                "damaged" => {
                    let last = bytes.len() - 1;
                    bytes[last] ^= 1;
                    fs::write(&path, bytes).unwrap();
                }
                "cut" => fs::write(&path, &bytes[..bytes.len() - 1]).unwrap(),
                "garbage" => fs::write(&path, vec![7; 5000]).unwrap(),
                _ => {
                    // A genuine image of the same model, but not the expected one.
                    let request = SealRequest::new("model", 0).protection(kind);
                    let (request, seed) = match what {
                        // Even with the same content, but sealed in another way.
                        "twin" => (request.suite(Suite::ChaCha20Poly1305), 1),
                        _ => (request, 2),
                    };
                    let other = rig.manager.seal(request, &content(LEN, seed)).unwrap();
                    let there = folder.path().join("other");
                    let options = ExportOptions::new().overwrite(Overwrite::Replace);
                    rig.manager.export_to(&other, &there, options).unwrap();
                    rig.manager.free_shard(&other).unwrap();
                    fs::rename(there, &path).unwrap();
                }
            }
            rig.lose(&shard);
            let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
            assert!(report.restored.is_empty() && report.parked.is_empty(), "{what}");
            let [lost] = report.lost.as_slice() else { panic!("{what}: {report:?}") };
            match (&lost.why, what) {
                (NotRestored::OtherImage, "another" | "twin")
                | (NotRestored::Failed(VramError::Io { path: Some(_), .. }), "gone")
                | (NotRestored::Failed(VramError::Image { .. }), "damaged" | "cut" | "garbage") => {
                }
                (why, _) => panic!("{what}: {why:?}"),
            }
            assert!(lost.to_string().contains("is gone: "), "{lost}");
            rig.is_whole(0);
        }
    }
}

#[test]
fn an_image_of_an_older_seal_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let rig = two_gpus(MODES[0]);
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.export_to(&shard, folder.path().join("image"), ExportOptions::new()).unwrap();
    let opened = rig.manager.open_resident(&shard).unwrap();
    rig.lose(&opened);
    let report = rig.manager.reset_gpu(0, ResetOptions::new()).unwrap();
    assert!(matches!(report.lost[0].why, NotRestored::NoCopy));
}

#[test]
fn a_backup_comes_before_an_image_and_the_image_of_a_parked_shard_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let rig = two_gpus(MODES[0]);
    let path = folder.path().join("image");
    let shard = seal(&rig, 0, Protection::Encrypted, 1);
    rig.manager.export_to(&shard, &path, ExportOptions::new()).unwrap();
    let parked = rig.manager.park(&shard).unwrap();
    let shard = rig.manager.wake(parked, 1).unwrap();
    rig.devices[1].next(Op::Read, Action::Driver(ECC)).unwrap();
    assert!(!is_lost(rig.manager.unseal_model(&shard)), "it is gpu 1 that is lost");
    let report = rig.manager.reset_gpu(1, ResetOptions::new()).unwrap();
    let back = report.restored[0].clone();
    assert_eq!(rig.manager.unseal_model(&back).unwrap(), content(LEN, 1));

    rig.manager.back_up(&back).unwrap();
    fs::remove_file(&path).unwrap();
    rig.lose(&back);
    assert_eq!(rig.manager.reset_gpu(1, ResetOptions::new()).unwrap().restored.len(), 1);
}
