//! The spelling of a manifest: JSON without spaces, fields in one order, the code last.

use serde::{Deserialize, Serialize};
use vram_seal::Protection;

use super::{Manifest, ManifestError, ShardEntry, SourceInfo, word};
use crate::naming::id::{digits, hex};

const VERSION: u64 = 1;

/// All fields but the code, in order.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    vram_manifest: u64,
    fleet: Option<String>,
    model: String,
    revision: u64,
    context: String,
    key_id: String,
    created: String,
    protection: String,
    ranks: Vec<Vec<u64>>,
    shards: Vec<WireShard>,
    source: WireSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireShard {
    index: u64,
    plaintext_len: u64,
    image: String,
    image_len: u64,
    record_mac: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct WireSource {
    format: String,
    digest: String,
}

/// The last bytes of a manifest: its code, in the place of the closing brace.
pub(super) fn ending(mac: &[u8; 32]) -> String {
    format!(",\"mac\":\"{}\"}}", hex(mac))
}

/// All bytes but the ending.
pub(super) fn write(manifest: &Manifest) -> Vec<u8> {
    let shard = |shard: &ShardEntry| WireShard {
        index: shard.index,
        plaintext_len: shard.plaintext_len,
        image: shard.image.to_string(),
        image_len: shard.image_len,
        record_mac: hex(&shard.record_mac),
    };
    let wire = Wire {
        vram_manifest: VERSION,
        fleet: manifest.fleet.clone(),
        model: manifest.model.clone(),
        revision: manifest.revision,
        context: hex(&manifest.context),
        key_id: manifest.key_id.to_string(),
        created: manifest.created.clone(),
        protection: word(manifest.protection).to_owned(),
        ranks: manifest.ranks.clone(),
        shards: manifest.shards.iter().map(shard).collect(),
        source: WireSource {
            format: manifest.source.format.clone(),
            digest: hex(&manifest.source.digest),
        },
        mac: None,
    };
    // Strings and numbers alone: this cannot fail, and bytes that are no manifest are refused.
    let mut bytes = serde_json::to_vec(&wire).unwrap_or_default();
    let _brace = bytes.pop();
    bytes
}

/// Reads the fields. The caller compares the spelling.
pub(super) fn read(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let wire: Wire =
        serde_json::from_slice(bytes).map_err(|error| ManifestError::Form(error.to_string()))?;
    if wire.vram_manifest != VERSION {
        return Err(ManifestError::Field { field: "vram_manifest", why: "this program reads 1" });
    }
    let why = "hexadecimal digits in lower case, of the right number";
    let mut shards = Vec::new();
    for shard in &wire.shards {
        shards.push(ShardEntry {
            index: shard.index,
            plaintext_len: shard.plaintext_len,
            image: shard
                .image
                .parse()
                .map_err(|_not_digits| ManifestError::Field { field: "image", why })?,
            image_len: shard.image_len,
            record_mac: bytes_of("record_mac", &shard.record_mac)?,
        });
    }
    let mac = wire.mac.ok_or(ManifestError::Field { field: "mac", why: "it is required" })?;
    Ok(Manifest {
        context: bytes_of("context", &wire.context)?,
        key_id: vram_seal::KeyId::from_bytes(bytes_of("key_id", &wire.key_id)?),
        protection: protection(&wire.protection)?,
        source: SourceInfo {
            format: wire.source.format,
            digest: bytes_of("source.digest", &wire.source.digest)?,
        },
        mac: bytes_of("mac", &mac)?,
        fleet: wire.fleet,
        model: wire.model,
        revision: wire.revision,
        created: wire.created,
        ranks: wire.ranks,
        shards,
    })
}

fn bytes_of<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], ManifestError> {
    let why = "hexadecimal digits in lower case, of the right number";
    digits(text).ok_or(ManifestError::Field { field, why })
}

fn protection(text: &str) -> Result<Protection, ManifestError> {
    let all = [Protection::Encrypted, Protection::Authenticated];
    let why = "encrypted or authenticated";
    let found = all.into_iter().find(|protection| word(*protection) == text);
    found.ok_or(ManifestError::Field { field: "protection", why })
}
