//! Which kinds of image an import accepts, and what it knows of a shard afterwards.

use vram_residency::{ExportOptions, ImportRequest, Protection, SealError, SealRequest, VramError};
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
