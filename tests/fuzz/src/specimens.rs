//! Genuine shards, and the construction of their codes from the text of the format: so that a target
//! can sign what a holder of the key could sign.

use core::fmt::Write as _;
use std::sync::OnceLock;

use vram_seal::{
    ContentDigest, Expected, KeyRing, Protection, SealContext, SealKey, SealParams, SealRecord,
    SegmentSize, SivScope, Suite, Threads, TicketKey, image, seal,
};

/// The master key of all specimens. It has no pattern, so a text in which it stands has told it.
pub const MASTER: [u8; 32] = *b"\x8e\x13\xf7\x5b\xc0\x29\x64\xda\x3f\x96\x01\xbd\x72\xe8\x4c\xa5\
    \x1f\xd3\x87\x6a\x0b\xfe\x45\x98\x2c\xb1\xe4\x70\x53\xc9\x3d\xa6";
/// Their model id.
pub const MODEL: &str = "model";
/// Their context.
pub const CONTEXT: &[u8] = b"tenant";
/// Their metadata.
pub const METADATA: &[u8] = b"f16";
/// Their shard index.
pub const INDEX: u64 = 3;
/// Their revision.
pub const REVISION: u64 = 7;
/// Bytes of a segment.
pub const SEGMENT: usize = 4096;

/// A sealed shard, in its parts.
#[derive(Debug)]
pub struct Specimen {
    /// The content.
    pub plaintext: Vec<u8>,
    /// The record.
    pub record: SealRecord,
    /// The table.
    pub table: Vec<u8>,
    /// The sealed bytes.
    pub data: Vec<u8>,
    /// All three, as a file.
    pub image: Vec<u8>,
    /// The plain digest of the content.
    pub digest: ContentDigest,
    /// What lies in `data`.
    pub protection: Protection,
}

impl Specimen {
    /// Whether ciphertext lies in `data`.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.protection == Protection::Encrypted
    }
}

/// The key.
#[must_use]
pub fn key() -> SealKey {
    SealKey::from_bytes(&MASTER)
}

/// A ring with the key.
#[must_use]
pub fn keys() -> KeyRing {
    KeyRing::new(key())
}

/// What all specimens are bound to.
#[must_use]
pub fn context() -> SealContext<'static> {
    let context = SealContext::new(MODEL).unwrap();
    context.context(CONTEXT).metadata(METADATA).shard_index(INDEX).revision(REVISION)
}

/// Expects a specimen of any protection.
#[must_use]
pub fn expected() -> Expected<'static> {
    Expected::from(&context()).any_protection()
}

/// Every kind of seal, over four sizes.
#[must_use]
pub fn all() -> &'static [Specimen] {
    static ALL: OnceLock<Vec<Specimen>> = OnceLock::new();
    ALL.get_or_init(|| {
        let base = SealParams::new().with_segment(SegmentSize::MIN);
        let mut kinds = vec![base.with_protection(Protection::Authenticated)];
        for scope in [SivScope::Segment, SivScope::Shard] {
            for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
                kinds.push(base.with_scope(scope).with_suite(suite));
            }
        }
        let sizes = [0, 17, SEGMENT + 1, 3 * SEGMENT + 5];
        sizes.iter().flat_map(|len| kinds.iter().map(|kind| made(*len, *kind))).collect()
    })
}

fn made(len: usize, params: SealParams) -> Specimen {
    let plaintext: Vec<u8> =
        (0..len).map(|at| ((131 * at + 17 * (at / 256) + 7) % 256).to_le_bytes()[0]).collect();
    let mut data = vec![0; len];
    let threads = Threads::exactly(1);
    let sealed = seal(&key(), &context(), params, threads, &plaintext, &mut data).unwrap();
    let mut image = image::head(&sealed.record, &sealed.tags).unwrap();
    image.extend_from_slice(&data);
    Specimen {
        plaintext,
        table: sealed.tags.as_bytes().to_vec(),
        record: sealed.record,
        data,
        image,
        digest: sealed.digest,
        protection: params.protection(),
    }
}

/// A key of the format, by its purpose.
#[must_use]
pub fn subkey(purpose: &str) -> [u8; 32] {
    blake3::derive_key(&format!("vram-seal v1 2026-11 {purpose}"), &MASTER)
}

/// The code of a record.
#[must_use]
pub fn record_code(record: &[u8]) -> [u8; 32] {
    // A ticket key signs by HMAC-SHA256, as the code of a record is made.
    TicketKey::from_bytes(&subkey("header-mac")).sign(&record[..224])
}

/// Signs a record, as a holder of the key can. What is shorter than one has no code.
pub fn sign_record(bytes: &mut [u8]) {
    if bytes.len() >= SealRecord::LEN {
        let code = record_code(bytes);
        bytes[224..256].copy_from_slice(&code);
    }
}

/// Signs a table in its record, and the record.
pub fn sign_table(record: &mut [u8], table: &[u8]) {
    if record.len() >= SealRecord::LEN {
        let mut hasher = blake3::Hasher::new_keyed(&subkey("table-mac"));
        hasher.update(blake3::hash(&record[..128]).as_bytes()).update(table);
        record[160..192].copy_from_slice(hasher.finalize().as_bytes());
        sign_record(record);
    }
}

/// The code of the model id and context.
#[must_use]
pub fn binding(model: &str, context: &[u8]) -> [u8; 32] {
    let mut bytes = Vec::new();
    for part in [model.as_bytes(), context] {
        bytes.extend_from_slice(&u64::try_from(part.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(part);
    }
    *blake3::keyed_hash(&subkey("binding"), &bytes).as_bytes()
}

/// The code of metadata.
#[must_use]
pub fn metadata_code(metadata: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(&subkey("metadata"), metadata).as_bytes()
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Checks that a text shows no byte of a key, nor of the digest of a content.
pub fn tells_nothing(text: &str) {
    let text = text.to_ascii_lowercase();
    let keys = [MASTER, subkey("header-mac"), subkey("table-mac"), subkey("binding")];
    let digests = all().iter().map(|one| *one.digest.as_bytes());
    for secret in keys.into_iter().chain(digests) {
        assert!(!text.contains(&hex(&secret[..6])), "a secret in {text}");
        let list = format!("{:?}", &secret[..6]);
        assert!(!text.contains(list.trim_matches(['[', ']'])), "a secret in {text}");
    }
}
