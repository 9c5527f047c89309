//! The bytes of a ticket: the signed part and the transport form.
//!
//! Fixed fields in a fixed order, then four texts, each preceded by its length, so that no two
//! tickets share an encoding. Numbers are little endian.
//!
//! | bytes      | field                                                                      |
//! |------------|----------------------------------------------------------------------------|
//! | `0..16`    | domain separator `vram-ticket/0002`                                        |
//! | `16`       | version: 2                                                                 |
//! | `17`       | protection: 1 Encrypted, 2 Authenticated                                   |
//! | `18`       | state: 1 sound, 2 quarantined                                              |
//! | `19`       | which of these are there: 1 node, 2 owner, 4 digest, 8 last verified; with |
//! |            | 8: 16 if a fingerprint was checked, else the seal; 32 if by the card       |
//! | `20..24`   | GPU index                                                                  |
//! | `24..56`   | nonce                                                                      |
//! | `56..72`   | manager                                                                    |
//! | `72..88`   | key id                                                                     |
//! | `88..104`  | id of the ticket key that signs                                            |
//! | `104..120` | GPU UUID                                                                   |
//! | `120..152` | code of the seal record                                                    |
//! | `152..184` | content digest; zeros if it is not there                                   |
//! | `184..192` | plaintext length                                                           |
//! | `192..200` | generation                                                                 |
//! | `200..208` | last verified, milliseconds since 1970; zero if it is not there            |
//! | `208..216` | unverified age, milliseconds                                               |
//! | `216..224` | issued at, milliseconds since 1970                                         |
//! | `224..`    | shard id, model id, node, owner: each a length of two bytes, then the text |
//! | last 32    | signature over all before it                                               |

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid, Site};
use vram_id::Timestamp;
use vram_seal::{Checked, ContentDigest, Evidence, KeyId, MODEL_ID_LEN_MAX, Protection};

use crate::error::TicketError;
use crate::ticket::{ShardTicket, TicketState, VERSION};

/// The longest node name and the longest owner in a ticket, in bytes.
pub const TICKET_NAME_LEN_MAX: usize = 1024;

const DOMAIN: &[u8; 16] = b"vram-ticket/0002";
/// The domain of every version, before its four decimal digits.
const DOMAINS: &[u8; 12] = b"vram-ticket/";
pub(crate) const NODE: u8 = 1;
pub(crate) const OWNER: u8 = 2;
const DIGEST: u8 = 4;
pub(crate) const VERIFIED: u8 = 8;
const BY_FINGERPRINT: u8 = 16;
const BY_CARD: u8 = 32;

impl ShardTicket {
    /// The longest encoding of a ticket, in bytes.
    pub const LEN_MAX: usize = 4096;

    /// The signed part: all fields except the signature. `None` if a field has no encoding: a text
    /// that is too long, or an unknown version or kind. Tickets of a manager always have an
    /// encoding.
    pub(crate) fn statement(&self) -> Option<Vec<u8>> {
        let (node, owner) = (self.node.as_deref(), self.owner.as_deref());
        let flags = [
            (node.is_some(), NODE),
            (owner.is_some(), OWNER),
            (self.digest.is_some(), DIGEST),
            (self.last_verified.is_some(), VERIFIED),
        ];
        let flags = flags.iter().filter(|(there, _)| *there).fold(0, |sum, (_, bit)| sum | bit)
            | check_flags(self.checked);
        let protection = match self.protection {
            Protection::Encrypted => 1,
            Protection::Authenticated => 2,
            _ => return None,
        };
        let state = match self.state {
            TicketState::Sound => 1,
            TicketState::Quarantined => 2,
        };
        if self.version != VERSION {
            return None;
        }
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(DOMAIN);
        bytes.extend_from_slice(&[self.version, protection, state, flags]);
        bytes.extend_from_slice(&self.gpu_index.to_le_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.manager);
        bytes.extend_from_slice(self.key_id.as_bytes());
        bytes.extend_from_slice(self.signed_by.as_bytes());
        bytes.extend_from_slice(self.gpu_uuid.as_bytes());
        bytes.extend_from_slice(&self.record_mac);
        let digest = self.digest.as_ref().map_or([0; 32], |digest| *digest.as_bytes());
        bytes.extend_from_slice(&digest);
        for number in [
            self.plaintext_len.get(),
            self.generation,
            self.last_verified.map_or(0, Timestamp::unix_millis),
            self.unverified_ms,
            self.issued_at.unix_millis(),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let texts = [
            (self.shard_id.as_str(), usize::MAX),
            (&*self.model_id, MODEL_ID_LEN_MAX),
            (node.unwrap_or_default(), TICKET_NAME_LEN_MAX),
            (owner.unwrap_or_default(), TICKET_NAME_LEN_MAX),
        ];
        push_texts(&mut bytes, &texts)?;
        Some(bytes)
    }

    /// The ticket as bytes, signature last. Empty if a field was changed to a value that no ticket
    /// has.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.statement().unwrap_or_default();
        if !bytes.is_empty() {
            bytes.extend_from_slice(&self.signature);
        }
        bytes
    }

    /// Reads exactly the format that [`to_bytes`](Self::to_bytes) writes. **Checks nothing against
    /// a key**: [`TicketVerifier::verify`](crate::TicketVerifier::verify) does.
    ///
    /// # Errors
    ///
    /// [`TicketError::Version`] for a ticket of another version; [`TicketError::Malformed`] for any
    /// other input. Memory use is bounded by [`LEN_MAX`](Self::LEN_MAX) for every input.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        // First: other versions may have other lengths.
        if let Some(found) = version(DOMAINS, bytes).filter(|found| *found != u16::from(VERSION)) {
            return Err(TicketError::Version { found });
        }
        if bytes.len() > Self::LEN_MAX {
            return Err(TicketError::Malformed { what: "its length" });
        }
        let (statement, signature) =
            bytes.split_last_chunk().ok_or(TicketError::Malformed { what: "its length" })?;
        let mut rest = Rest(statement);
        if rest.array("the domain")? != *DOMAIN {
            return Err(TicketError::Malformed { what: "the domain" });
        }
        let [version, protection, state, flags] = rest.array("the kinds")?;
        if version != VERSION {
            return Err(TicketError::Malformed { what: "the version" });
        }
        let protection = match protection {
            1 => Protection::Encrypted,
            2 => Protection::Authenticated,
            _ => return Err(TicketError::Malformed { what: "the protection" }),
        };
        let state = match state {
            1 => TicketState::Sound,
            2 => TicketState::Quarantined,
            _ => return Err(TicketError::Malformed { what: "the state" }),
        };
        let gpu_index = u32::from_le_bytes(rest.array("the GPU index")?);
        let nonce = rest.array("the nonce")?;
        let manager = rest.array("the manager")?;
        let key_id = KeyId::from_bytes(rest.array("the key id")?);
        let signed_by = KeyId::from_bytes(rest.array("the ticket key's id")?);
        let gpu_uuid = DeviceUuid::new(rest.array("the GPU UUID")?);
        let record_mac = rest.array("the record's code")?;
        let digest: [u8; 32] = rest.array("the digest")?;
        let plaintext_len = ByteLen::new(rest.number("the plaintext length")?);
        let generation = rest.number("the generation")?;
        let last_verified = rest.number("when it was last verified")?;
        let unverified_ms = rest.number("the unverified age")?;
        let issued_at = Timestamp::from_unix_millis(rest.number("when it was issued")?);
        let shard_id = rest.text("the shard id", usize::MAX)?;
        let shard_id =
            shard_id.parse().map_err(|_| TicketError::Malformed { what: "the shard id" })?;
        let model_id = rest.text("the model id", MODEL_ID_LEN_MAX)?.into();
        let node = rest.text("the node", TICKET_NAME_LEN_MAX)?;
        let owner = rest.text("the owner", TICKET_NAME_LEN_MAX)?;
        if !rest.0.is_empty() {
            return Err(TicketError::Malformed { what: "its length" });
        }
        let name = |text: &str, bit| (flags & bit != 0).then(|| Arc::<str>::from(text));
        let ticket = Self {
            version,
            nonce,
            manager,
            node: name(node, NODE),
            shard_id,
            model_id,
            owner: name(owner, OWNER),
            gpu_uuid,
            gpu_index,
            plaintext_len,
            protection,
            record_mac,
            digest: (flags & DIGEST != 0).then(|| ContentDigest::from_bytes(digest)),
            key_id,
            signed_by,
            generation,
            state,
            last_verified: (flags & VERIFIED != 0)
                .then(|| Timestamp::from_unix_millis(last_verified)),
            checked: checked_of(flags),
            unverified_ms,
            issued_at,
            signature: *signature,
        };
        // A ticket has one encoding: no unknown flag, and zeros where a field is absent.
        match ticket.statement() {
            Some(again) if again == statement => Ok(ticket),
            _ => Err(TicketError::Malformed { what: "a field that should be empty" }),
        }
    }
}

/// The bits for what the last check rests on.
pub(crate) fn check_flags(checked: Option<Checked>) -> u8 {
    let fingerprint = checked.is_some_and(|by| by.evidence == Evidence::Fingerprint);
    let card = checked.is_some_and(|by| by.site == Site::Card);
    (if fingerprint { BY_FINGERPRINT } else { 0 }) | (if card { BY_CARD } else { 0 })
}

/// What the last check rests on, if there was one.
pub(crate) fn checked_of(flags: u8) -> Option<Checked> {
    let fingerprint = flags & BY_FINGERPRINT != 0;
    let evidence = if fingerprint { Evidence::Fingerprint } else { Evidence::Proof };
    let site = if flags & BY_CARD != 0 { Site::Card } else { Site::Host };
    (flags & VERIFIED != 0).then_some(Checked { evidence, site })
}

/// What a statement says of the last check: by the seal itself on the host unless it says otherwise.
pub(crate) fn stated(verified: Option<Timestamp>, checked: Option<Checked>) -> Option<Checked> {
    verified.map(|_when| checked.unwrap_or(Checked::BY_HOST))
}

/// Appends texts, each after its length; `None` if one is longer than its maximum.
pub(crate) fn push_texts(bytes: &mut Vec<u8>, texts: &[(&str, usize)]) -> Option<()> {
    for (text, max) in texts {
        let len = u16::try_from(text.len()).ok().filter(|_| text.len() <= *max)?;
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Some(())
}

/// The version that the domain names, if the bytes begin with one of these domains.
pub(crate) fn version(domains: &[u8; 12], bytes: &[u8]) -> Option<u16> {
    let digits: &[u8; 4] = bytes.strip_prefix(domains)?.first_chunk()?;
    digits
        .iter()
        .all(u8::is_ascii_digit)
        .then(|| core::str::from_utf8(digits).ok()?.parse().ok())?
}

/// The bytes that are not read yet.
pub(crate) struct Rest<'a>(pub(crate) &'a [u8]);

impl<'a> Rest<'a> {
    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], TicketError> {
        let (part, rest) = self.0.split_first_chunk().ok_or(TicketError::Malformed { what })?;
        self.0 = rest;
        Ok(*part)
    }

    pub(crate) fn number(&mut self, what: &'static str) -> Result<u64, TicketError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn text(&mut self, what: &'static str, max: usize) -> Result<&'a str, TicketError> {
        let len = usize::from(u16::from_le_bytes(self.array(what)?));
        let refused = TicketError::Malformed { what };
        let (text, rest) =
            self.0.split_at_checked(len).filter(|_| len <= max).ok_or(refused.clone())?;
        self.0 = rest;
        core::str::from_utf8(text).map_err(|_| refused)
    }
}
