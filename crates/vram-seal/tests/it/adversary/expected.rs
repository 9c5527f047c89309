//! What a caller expects is compared, and what a record states without its key confirms no guess.

use vram_seal::{
    ContextField, Expected, OpenLimits, Protection, SealContext, SealError, SealParams, SealRecord,
    SivScope, Suite, open_record,
};

use vram_testkit::content;

use crate::support::{S, Shard, key, kinds};

fn refusal(record: &SealRecord, expected: &Expected<'_>) -> Option<SealError> {
    open_record(&key(7), record, expected, OpenLimits::default()).err()
}

#[test]
fn plaintext_is_not_taken_for_ciphertext_unless_it_is_named() {
    let plain = Shard::of(kinds()[0], &content(2 * S, 1)).record;
    let cipher = Shard::of(kinds()[1], &content(2 * S, 1)).record;
    let model = Expected::new("model").unwrap();
    let mismatch = |expected, found| Some(SealError::ProtectionMismatch { expected, found });
    let (encrypted, authenticated) = (Protection::Encrypted, Protection::Authenticated);

    assert_eq!(refusal(&plain, &model), mismatch(encrypted, authenticated));
    assert_eq!(refusal(&cipher, &model), None);
    let named = model.protection(authenticated);
    assert_eq!(refusal(&plain, &named), None);
    assert_eq!(refusal(&cipher, &named), mismatch(authenticated, encrypted));
    for record in [&plain, &cipher] {
        assert_eq!(refusal(record, &model.any_protection()), None);
        assert_eq!(refusal(record, &Expected::anything()), None);
    }
    let context = SealContext::new("model").unwrap();
    assert_eq!(refusal(&plain, &Expected::from(&context)), mismatch(encrypted, authenticated));
    let says = refusal(&plain, &model).unwrap().to_string();
    assert!(says.contains("name Authenticated, or any protection"), "{says}");
}

#[test]
fn scope_and_cipher_are_compared_where_they_are_named() {
    let model = Expected::new("model").unwrap();
    let mismatch = |field| Some(SealError::ContextMismatch { field });
    for params in kinds() {
        let record = Shard::of(params, &content(2 * S, 1)).record;
        for expected in kinds() {
            let refused = refusal(&record, &model.params(expected));
            assert_eq!(refused.is_none(), params == expected, "{params:?}, {expected:?}");
        }
        let any = model.any_protection();
        let plain = params.protection() == Protection::Authenticated;
        for scope in [SivScope::Segment, SivScope::Shard] {
            let right = !plain && params.scope() == scope;
            let wanted = if right { None } else { mismatch(ContextField::Scope) };
            assert_eq!(refusal(&record, &any.scope(scope)), wanted);
        }
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let right = !plain && params.suite() == suite;
            let wanted = if right { None } else { mismatch(ContextField::Suite) };
            assert_eq!(refusal(&record, &any.suite(suite)), wanted);
        }
    }
}

/// Everything that a party without the key can compute from a guess of these bytes with BLAKE3:
/// the plain hash, and hashes under keys that the party chose itself.
fn guesses(bytes: &[u8]) -> Vec<[u8; 32]> {
    let mut hashes = vec![*blake3::hash(bytes).as_bytes()];
    for purpose in ["binding", "metadata", "header-mac"] {
        let label = format!("vram-seal v1 2026-11 {purpose}");
        hashes.push(blake3::derive_key(&label, bytes));
        for wrong in [[0; 32], [8; 32]] {
            let key = blake3::derive_key(&label, &wrong);
            hashes.push(*blake3::keyed_hash(&key, bytes).as_bytes());
        }
    }
    hashes
}

#[test]
fn an_image_alone_confirms_no_guess_of_model_tenant_or_metadata() {
    let (model, tenant, metadata) = ("llama-3-8b", b"tenant-1", b"bf16 [4096]");
    let context = SealContext::new(model).unwrap().context(tenant).metadata(metadata);
    let len = |part: &[u8]| u64::try_from(part.len()).unwrap().to_le_bytes();
    let binding = [&len(model.as_bytes())[..], model.as_bytes(), &len(tenant), tenant].concat();
    for params in kinds() {
        let shard = Shard::seal(&key(7), &context, params, &content(100, 1));
        let image = [&shard.record[..], shard.tags.as_bytes()].concat();
        for bytes in [&binding[..], model.as_bytes(), tenant, metadata] {
            for hash in guesses(bytes) {
                assert!(!image.windows(32).any(|window| window == hash), "{params:?}");
            }
        }
        // Under another key the same names give other codes.
        let there = Shard::seal(&key(8), &context, params, &content(100, 1));
        assert!(there.record[64..96] != shard.record[64..96]);
        assert!(there.record[96..128] != shard.record[96..128]);
        // The holder of the key confirms all three.
        let expected = Expected::in_context(model, tenant).unwrap().metadata(metadata);
        assert_eq!(refusal(&shard.record, &expected.params(params)), None);
    }
}

#[test]
fn the_two_codes_of_a_record_never_agree_by_construction() {
    // Metadata that repeats the bytes of the binding has another code: each has a key of its own.
    let binding = [&1_u64.to_le_bytes()[..], b"m", &0_u64.to_le_bytes()].concat();
    let context = SealContext::new("m").unwrap().metadata(&binding);
    let record = Shard::seal(&key(7), &context, SealParams::new(), b"x").record;
    assert!(record[64..96] != record[96..128]);
}

#[test]
fn metadata_that_is_known_by_its_code_serves_under_its_own_key_only() {
    let context = SealContext::new("model").unwrap().metadata(b"f16");
    let shard = Shard::seal(&key(7), &context, SealParams::new(), &content(100, 1));
    let code = shard.record.parse_unauthenticated().unwrap().metadata_code();
    assert_eq!(code.key_id(), key(7).id());

    let again = SealContext::new("model").unwrap().metadata_code(code);
    let same = Shard::seal(&key(7), &again, SealParams::new(), &content(100, 1));
    assert!(same.record == shard.record);
    let expected = Expected::new("model").unwrap();
    assert_eq!(refusal(&shard.record, &expected.metadata_code(code)), None);
    let other = Shard::of(SealParams::new(), b"x").record;
    assert_eq!(
        refusal(&other, &expected.metadata_code(code)),
        Some(SealError::ContextMismatch { field: ContextField::Metadata })
    );
    let mut out = [0];
    let threads = vram_seal::Threads::ONE;
    let refused = vram_seal::seal(&key(8), &again, SealParams::new(), threads, &[1], &mut out);
    assert_eq!(
        refused.err(),
        Some(SealError::MetadataKey { expected: key(8).id(), found: key(7).id() })
    );
    assert!(!format!("{code:?} {again:?}").contains(&format!("{:?}", code.as_bytes())[1..12]));
}

#[test]
fn a_print_of_what_is_sealed_or_expected_names_no_model_tenant_or_metadata() {
    let (model, tenant, metadata) = ("secret-model", &b"secret-tenant"[..], &b"secret-shape"[..]);
    let sealed_as = SealContext::new(model).unwrap().context(tenant).metadata(metadata);
    let expected = Expected::in_context(model, tenant).unwrap().metadata(metadata);
    for print in [
        format!("{sealed_as:?} {sealed_as:#?}"),
        format!("{expected:?} {expected:#?}"),
        format!("{:?}", Expected::from(&sealed_as)),
    ] {
        for secret in [model.as_bytes(), tenant, metadata] {
            assert!(!print.contains(core::str::from_utf8(secret).unwrap()), "{print}");
            assert!(!print.contains(&format!("{secret:?}")), "{print}");
            let first = format!("{}, {}", secret[0], secret[1]);
            assert!(!print.replace(",\n", ",").contains(&first), "{print}");
            assert!(print.contains(&format!("{} bytes", secret.len())), "{print}");
        }
    }
}
