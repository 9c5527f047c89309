//! Which kinds of image an import accepts, and what it knows of a shard afterwards.

use vram_residency::device::fault::{Action, Op, When};
use vram_residency::{
    ExportOptions, ImportRequest, Protection, SealError, SealRequest, Verify, VramError,
};
use vram_test_rigs::{Rig, content};

use crate::moves::keys::other;
use crate::moves::sealed_images::{exported, import};

fn refusal(outcome: Result<impl core::fmt::Debug, VramError>) -> SealError {
    match outcome {
        Err(VramError::Seal(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plaintext_image_is_imported_only_if_its_protection_is_named() {
    let rig = Rig::new(&[1 << 16]);
    let manager = &rig.manager;
    let bytes = content(5000, 1);
    let (encrypted, authenticated) = (Protection::Encrypted, Protection::Authenticated);
    for sealed in [encrypted, authenticated] {
        let request = SealRequest::new("model", 0).protection(sealed);
        let shard = manager.seal(request, &bytes).unwrap();
        let mut image = Vec::new();
        manager.export_with(&shard, &mut image, ExportOptions::new().plaintext()).unwrap();
        manager.free_shard(&shard).unwrap();
        let request = || ImportRequest::new("model", 0);
        let arrives = |request: ImportRequest<'_>| {
            let arrived = manager.import(request, image.as_slice()).unwrap();
            assert_eq!(arrived.protection, sealed);
            assert_eq!(manager.unseal_model(&arrived).unwrap(), bytes);
            manager.free_shard(&arrived).unwrap();
        };
        let refused = |request: ImportRequest<'_>| {
            let error = refusal(manager.import(request, image.as_slice()));
            assert!(matches!(error, SealError::ProtectionMismatch { .. }), "{error}");
            assert!(error.to_string().contains(&format!("name {sealed:?}")), "{error}");
            assert_eq!(manager.get_used_vram(0).unwrap(), 0);
        };
        arrives(request().any_protection());
        arrives(request().protection(sealed));
        if sealed == encrypted {
            arrives(request());
            refused(request().protection(authenticated));
        } else {
            refused(request());
            refused(request().protection(encrypted));
        }
    }
}

/// The image of a shard of this protection, as it is in memory.
fn image_of(kind: Protection, bytes: &[u8]) -> Vec<u8> {
    let rig = Rig::new(&[1 << 16]);
    let shard = rig.manager.seal(SealRequest::new("model", 0).protection(kind), bytes).unwrap();
    let mut image = Vec::new();
    rig.manager.export_with(&shard, &mut image, ExportOptions::new().plaintext()).unwrap();
    image
}

/// From, to, and bytes of a GPU with room for a second copy, or without.
fn conversions() -> impl Iterator<Item = (Protection, Protection, usize)> {
    let (encrypted, authenticated) = (Protection::Encrypted, Protection::Authenticated);
    [1 << 16, 9000_usize.next_multiple_of(256)]
        .into_iter()
        .flat_map(move |room| [(encrypted, authenticated, room), (authenticated, encrypted, room)])
}

#[test]
fn an_image_is_converted_before_the_shard_is_resident_if_that_is_asked_for() {
    let bytes = content(9000, 3);
    for (from, to, room) in conversions() {
        let image = image_of(from, &bytes);
        let Rig { manager, .. } = Rig::new(&[room]);
        let request = ImportRequest::new("model", 0).protection(from).convert_to(to);
        let arrived = manager.import(request, image.as_slice()).unwrap();
        assert_eq!(arrived.protection, to);
        assert_eq!(manager.unseal_model(&arrived).unwrap(), bytes);
        assert!(manager.verify(&arrived, Verify::Full).unwrap().content);
        manager.free_shard(&arrived).unwrap();
        assert_eq!(manager.get_used_vram(0).unwrap(), 0);
    }
}

#[test]
fn bits_that_flip_while_an_image_is_converted_never_become_resident() {
    let bytes = content(9000, 3);
    for (from, to, room) in conversions() {
        let image = image_of(from, &bytes);
        let mut met = 0;
        for op in [Op::Read, Op::Write, Op::QueueRead, Op::QueueWrite] {
            for nth in 1.. {
                let Rig { manager, devices, .. } = Rig::new(&[room]);
                devices[0].add(op, When::Nth(nth), Action::FlipAnyBit).unwrap();
                let request = ImportRequest::new("model", 0).protection(from).convert_to(to);
                let answer = manager.import(request, image.as_slice());
                devices[0].clear();
                let fired = devices[0].calls().iter().any(|call| call.injected.is_some());
                match answer {
                    Ok(shard) => {
                        assert!(manager.verify(&shard, Verify::Full).unwrap().content, "{op:?}");
                        assert_eq!(manager.unseal_model(&shard).unwrap(), bytes);
                    }
                    Err(error) => {
                        assert!(fired, "{error}");
                        assert_eq!(
                            (manager.shards().len(), manager.get_used_vram(0).unwrap()),
                            (0, 0)
                        );
                    }
                }
                if !fired {
                    break;
                }
                met += 1;
            }
        }
        assert!(met > 3, "{met} calls");
    }
}

#[test]
fn a_shard_imported_without_its_metadata_is_sealed_anew_under_its_own_key_only() {
    let bytes = content(9000, 2);
    let image = exported(SealRequest::new("model", 0).context(b"tenant").metadata(b"f16"), &bytes);
    let rig = Rig::new(&[1 << 16]);
    let manager = &rig.manager;
    manager.add_key(other()).unwrap();

    let arrived = manager.import(import(), image.as_slice()).unwrap();
    let open = manager.open_resident(&arrived).unwrap();
    let closed = manager.close_resident(&open).unwrap();
    assert_eq!(closed.sealed_data, arrived.sealed_data);
    let error = refusal(manager.reseal_shard(&closed, &other().id()));
    let (expected, found) = (other().id(), manager.active_key());
    assert_eq!(error, SealError::MetadataKey { expected, found });
    assert_eq!(manager.unseal_model(&closed).unwrap(), bytes, "nothing changed");
    manager.free_shard(&closed).unwrap();

    // Who gives the metadata, or has none, can go to another key.
    let given = manager.import(import().metadata(b"f16"), image.as_slice()).unwrap();
    let resealed = manager.reseal_shard(&given, &other().id()).unwrap();
    assert_eq!(manager.unseal_model(&resealed).unwrap(), bytes);
    manager.free_shard(&resealed).unwrap();
    let bare = exported(SealRequest::new("model", 0).context(b"tenant"), &bytes);
    let arrived = manager.import(import(), bare.as_slice()).unwrap();
    let resealed = manager.reseal_shard(&arrived, &other().id()).unwrap();
    assert_eq!(manager.unseal_model(&resealed).unwrap(), bytes);
}
