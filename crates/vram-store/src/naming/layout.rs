//! The keys of a store. No object ever changes: each key contains the digest of its bytes.
//!
//! ```text
//!   v1/images/<aa>/<id>.vseal
//!   v1/images/<aa>/<id>.parts
//!   v1/models/<slug>-<8 digits>/<revision, 20 digits>-<digest>.manifest
//! ```

use crate::naming::id::{ImageId, ManifestId, hex};

/// The folder of all images.
pub(crate) const IMAGES: &str = "v1/images";
/// The folder of all models.
pub(crate) const MODELS: &str = "v1/models";
/// The folder of the marks of collections that are deleting.
pub(crate) const COLLECTING: &str = "v1/collecting";
/// Digits in the name of a mark.
const MARK_LEN: usize = 16;
/// Longest readable part of a model's folder.
const SLUG_LEN_MAX: usize = 48;

/// The key of a sealed image.
#[must_use]
pub fn image_key(id: &ImageId) -> String {
    image_part(id, "vseal")
}

/// The key of the digests of an image's parts.
#[must_use]
pub fn parts_key(id: &ImageId) -> String {
    image_part(id, "parts")
}

fn image_part(id: &ImageId, ending: &str) -> String {
    let id = id.to_string();
    // The first byte of a digest spreads the keys over 256 prefixes.
    let first = id.get(..2).unwrap_or_default();
    format!("{IMAGES}/{first}/{id}.{ending}")
}

/// The folder of a model's manifests: a readable form of its id, and a digest that tells apart ids
/// which read alike.
#[must_use]
pub fn model_folder(model: &str) -> String {
    let digest = ManifestId::of(model.as_bytes());
    let short = digest.as_bytes().first_chunk::<4>().map_or_else(String::new, |four| hex(four));
    format!("{MODELS}/{}-{short}", slug(model))
}

/// The key of a manifest.
#[must_use]
pub fn manifest_key(model: &str, revision: u64, id: &ManifestId) -> String {
    format!("{}/{revision:020}-{id}.manifest", model_folder(model))
}

/// Letters, digits, dots and underscores; each run of other characters is one hyphen.
fn slug(model: &str) -> String {
    let mut slug = String::new();
    for letter in model.chars() {
        let kept = match letter.to_ascii_lowercase() {
            kept @ ('a'..='z' | '0'..='9' | '.' | '_') => kept,
            _ => '-',
        };
        let starts = slug.is_empty() && matches!(kept, '-' | '.');
        if slug.len() < SLUG_LEN_MAX && !starts && !(kept == '-' && slug.ends_with('-')) {
            slug.push(kept);
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "model".to_owned() } else { slug.to_owned() }
}

/// What the key of an object says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Image(ImageId),
    Parts(ImageId),
    Manifest { folder: String, revision: u64, id: ManifestId },
}

/// Reads a key; `None` if nothing of this layout has it.
pub(crate) fn parse(key: &str) -> Option<Named> {
    if let Some(rest) = key.strip_prefix(IMAGES) {
        let (folder, name) = rest.strip_prefix('/')?.split_once('/')?;
        let (id, ending) = name.split_once('.')?;
        let id: ImageId = id.parse().ok()?;
        let named = match ending {
            "vseal" => Named::Image(id),
            "parts" => Named::Parts(id),
            _ => return None,
        };
        return name.starts_with(folder).then_some(named).filter(|_| folder.len() == 2);
    }
    let (folder, name) = key.strip_prefix(MODELS)?.strip_prefix('/')?.split_once('/')?;
    let (revision, id) = name.strip_suffix(".manifest")?.split_once('-')?;
    let canonical = revision.len() == 20 && revision.bytes().all(|digit| digit.is_ascii_digit());
    let revision = revision.parse().ok().filter(|_| canonical)?;
    Some(Named::Manifest { folder: folder.to_owned(), revision, id: id.parse().ok()? })
}

/// The key of a mark.
pub(crate) fn mark_key(random: u64) -> String {
    format!("{COLLECTING}/{random:0MARK_LEN$x}")
}

/// Whether a key is one of a mark, to the letter.
pub(crate) fn is_mark(key: &str) -> bool {
    let name = key.strip_prefix(COLLECTING).and_then(|rest| rest.strip_prefix('/'));
    let digit = |one: u8| one.is_ascii_digit() || (b'a'..=b'f').contains(&one);
    name.is_some_and(|name| name.len() == MARK_LEN && name.bytes().all(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_what_it_was_made_for() {
        let (image, manifest) = (ImageId::of(b"image"), ManifestId::of(b"manifest"));
        assert_eq!(parse(&image_key(&image)), Some(Named::Image(image)));
        assert_eq!(parse(&parts_key(&image)), Some(Named::Parts(image)));
        let key = manifest_key("Llama 3/70B", u64::MAX, &manifest);
        let Some(Named::Manifest { folder, revision, id }) = parse(&key) else {
            panic!("{key} is not read");
        };
        assert_eq!((revision, id), (u64::MAX, manifest));
        assert!(folder.starts_with("llama-3-70b-"), "{folder}");
    }

    #[test]
    fn no_other_key_is_read() {
        let image = image_key(&ImageId::of(b"image"));
        let manifest = manifest_key("m", 7, &ManifestId::of(b"manifest"));
        for wrong in [
            image.replace("v1/", "v2/"),
            image.replace(".vseal", ".vseal#1"),
            image.to_uppercase(),
            image.replacen("/images/", "/images/0", 1),
            manifest.replace("00000000000000000007", "7"),
            manifest.replace("00000000000000000007", "+0000000000000000007"),
            manifest.replace("00000000000000000007", "99999999999999999999"),
            manifest.replace(".manifest", ""),
            String::new(),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_mark_has_sixteen_digits_and_nothing_else_is_one() {
        assert!(is_mark(&mark_key(0)) && is_mark(&mark_key(u64::MAX)));
        let good = mark_key(0xabc);
        for wrong in [
            good.to_uppercase(),
            format!("{good}0"),
            format!("{good}/0"),
            good.replace("collecting/", "collecting/x/"),
            good.replacen('0', "", 1),
            good.replacen('0', "g", 1),
            format!("{COLLECTING}/notes.txt"),
            COLLECTING.to_owned(),
        ] {
            assert!(!is_mark(&wrong), "{wrong}");
        }
    }

    #[test]
    fn a_model_has_a_readable_folder_of_its_own() {
        for (model, slug) in [
            ("llama-3-70b", "llama-3-70b"),
            ("Meta/Llama 3", "meta-llama-3"),
            ("../../etc", "etc"),
            ("--", "model"),
            ("模型", "model"),
        ] {
            let folder = model_folder(model);
            let (readable, digest) = folder.rsplit_once('-').unwrap();
            assert_eq!(readable, format!("{MODELS}/{slug}"), "{model}");
            assert_eq!(digest.len(), 8);
        }
        assert_ne!(model_folder("a/b"), model_folder("a b"));
        assert!(model_folder(&"x".repeat(1024)).len() < 80);
    }
}
