//! The bytes of a manifest that was altered in its store, made again.
//!
//! Everything in a manifest but its time follows from the content that is pushed. So a push that finds
//! other bytes under the name of a manifest can make the right ones, if it learns the time: of the altered
//! bytes, in which at most one character of it may be another. Whether they are right, their digest says.

use vram_seal::ManifestKey;

use super::Manifest;
use super::time::{TIME_LEN, is_time};
use crate::naming::id::ManifestId;

/// What stands before the time.
const BEFORE: &[u8] = b"\"created\":\"";

/// The manifest of this digest, if it has the content of `pushed` and `altered` still tells its time.
pub(crate) fn made_again(
    pushed: &Manifest,
    altered: &[u8],
    id: &ManifestId,
    code: &ManifestKey,
) -> Option<Manifest> {
    let place = |bytes: &[u8]| {
        let at = bytes.windows(BEFORE.len()).position(|here| here == BEFORE)?;
        at.checked_add(BEFORE.len())
    };
    // Where it is if the length of nothing before it was altered, and where it seems to be.
    let places = [place(&pushed.to_bytes()), place(altered)];
    let texts = places
        .into_iter()
        .flatten()
        .filter_map(|at| altered.get(at..at.checked_add(TIME_LEN)?)?.first_chunk::<TIME_LEN>());
    let signed = |created: String| {
        let manifest = Manifest { created, ..pushed.clone() }.signed(code);
        (manifest.id() == *id).then_some(manifest)
    };
    // That of the push itself, if it follows within the same second.
    let now = core::iter::once(pushed.created.clone());
    now.chain(texts.flat_map(near)).find_map(signed)
}

/// The times that differ from a text in at most one character.
fn near(text: &[u8; TIME_LEN]) -> Vec<String> {
    let mut found = Vec::new();
    let mut keep = |text: &[u8]| {
        let text = str::from_utf8(text).ok().filter(|text| is_time(text));
        if let Some(text) = text.filter(|text| !found.iter().any(|other| other == text)) {
            found.push(text.to_owned());
        }
    };
    keep(text);
    for at in 0..TIME_LEN {
        for letter in *b"0123456789-T:Z" {
            let mut other = *text;
            if let Some(here) = other.get_mut(at) {
                *here = letter;
            }
            keep(&other);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use vram_seal::SealKey;

    use super::super::tests::manifest;
    use super::*;

    /// Any one byte may have become any other: also one of the time, or one that ends the text early.
    #[test]
    fn a_manifest_of_which_a_byte_was_altered_is_made_again() {
        let key = SealKey::from_bytes(&[7; 32]);
        let code = key.manifest_key();
        let good = manifest().signed(&code);
        let (bytes, id) = (good.to_bytes(), good.id());
        let later = Manifest { created: "2031-01-01T00:00:00Z".into(), ..good.clone() };
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 0x15;
            assert_eq!(made_again(&later, &altered, &id, &code).as_ref(), Some(&good), "{at}");
        }
        assert_eq!(made_again(&later, &bytes[20..], &id, &code), Some(good.clone()), "cut");
        assert_eq!(made_again(&later, b"{}", &id, &code), None);
        assert_eq!(made_again(&good, b"{}", &id, &code), Some(good.clone()), "in the same second");
        let other = Manifest { fleet: Some("other".into()), ..later };
        assert_eq!(made_again(&other, &bytes, &id, &code), None, "of other content");
    }
}
