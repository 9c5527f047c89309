//! The keys that every seal under one master key uses.

use std::sync::Arc;

use crate::key::derive::{Purpose, derive};
use crate::key::mac::MacKey;
use crate::key::secret::Secret;
use crate::wipe::scrub_stack;

/// The keys that follow from a master key and no seal: derived once, and shared by the key and by
/// what seals and opens under it. Wiped with the last of these.
pub(crate) struct DerivedKeys {
    pub(crate) header_mac: MacKey,
    pub(crate) siv: Secret,
    pub(crate) segment: Secret,
    pub(crate) table: Secret,
    pub(crate) attest: Secret,
    pub(crate) binding: Secret,
    pub(crate) metadata: Secret,
    /// The code of no metadata, which most records contain. Not secret.
    pub(crate) no_metadata: blake3::Hash,
}

impl DerivedKeys {
    pub(crate) fn of(master: &[u8; 32]) -> Arc<Self> {
        let key = |purpose| derive(master, purpose);
        let metadata = key(Purpose::Metadata);
        let no_metadata = blake3::keyed_hash(&metadata, &[]);
        scrub_stack();
        Arc::new(Self {
            header_mac: MacKey::new(&key(Purpose::HeaderMac)),
            siv: key(Purpose::Siv),
            segment: key(Purpose::SegmentKey),
            table: key(Purpose::TableMac),
            attest: key(Purpose::Attest),
            binding: key(Purpose::Binding),
            metadata,
            no_metadata,
        })
    }
}
