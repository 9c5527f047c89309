//! The bytes of a model ticket: the signed part and the transport form.
//!
//! Fixed fields in a fixed order, then the GPUs and three texts, each preceded by its length, so that
//! no two tickets share an encoding. Numbers are little endian.
//!
//! | bytes      | field                                                                |
//! |------------|----------------------------------------------------------------------|
//! | `0..16`    | domain separator `vram-models/0001`                                  |
//! | `16`       | version: 1                                                           |
//! | `17`       | which of these are there: 1 node, 2 owner, 8 last verified; with 8:  |
//! |            | 16 if any check was by fingerprint, 32 if any was by a card          |
//! | `18..20`   | the number of GPUs, 0 to 256                                         |
//! | `20..52`   | nonce                                                                |
//! | `52..68`   | manager                                                              |
//! | `68..84`   | id of the ticket key that signs                                      |
//! | `84..116`  | root over the seal records                                           |
//! | `116..124` | the number of shards                                                 |
//! | `124..132` | plaintext length                                                     |
//! | `132..140` | shards whose plaintext lies in device memory                         |
//! | `140..148` | shards in quarantine                                                 |
//! | `148..156` | admission                                                            |
//! | `156..164` | last verified, milliseconds since 1970; zero if it is not there      |
//! | `164..172` | unverified age, milliseconds                                         |
//! | `172..180` | issued at, milliseconds since 1970                                   |
//! | `180..`    | UUIDs of the GPUs, 16 bytes each, strictly ascending                 |
//! | then       | model id, node, owner: each a length of two bytes, then the text     |
//! | last 32    | signature over all before it                                         |

use std::sync::Arc;

use vram_alloc::{ByteLen, DeviceUuid};
use vram_id::Timestamp;
use vram_seal::{KeyId, MODEL_ID_LEN_MAX};

use crate::bytes::{
    NODE, OWNER, Rest, TICKET_NAME_LEN_MAX, VERIFIED, check_flags, checked_of, push_texts, version,
};
use crate::error::TicketError;
use crate::model::{ModelTicket, TICKET_GPUS_MAX, VERSION};

const DOMAIN: &[u8; 16] = b"vram-models/0001";
/// The domain of every version, before its four decimal digits.
const DOMAINS: &[u8; 12] = b"vram-models/";

impl ModelTicket {
    /// The longest encoding of a ticket, in bytes.
    pub const LEN_MAX: usize = 8192;

    /// The signed part: all fields except the signature. `None` if a field has no encoding.
    pub(crate) fn statement(&self) -> Option<Vec<u8>> {
        let rising = self.gpus.is_sorted_by(|one, next| one.as_bytes() < next.as_bytes());
        if self.version != VERSION || !rising || self.gpus.len() > TICKET_GPUS_MAX {
            return None;
        }
        let (node, owner) = (self.node.as_deref(), self.owner.as_deref());
        let flags = [
            (node.is_some(), NODE),
            (owner.is_some(), OWNER),
            (self.last_verified.is_some(), VERIFIED),
        ];
        let flags = flags.iter().filter(|(there, _)| *there).fold(0, |sum, (_, bit)| sum | bit)
            | check_flags(self.checked);
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(DOMAIN);
        bytes.extend_from_slice(&[self.version, flags]);
        bytes.extend_from_slice(&u16::try_from(self.gpus.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.manager);
        bytes.extend_from_slice(self.signed_by.as_bytes());
        bytes.extend_from_slice(&self.root);
        for number in [
            self.shard_count,
            self.plaintext_len.get(),
            self.authenticated,
            self.quarantined,
            self.admission,
            self.last_verified.map_or(0, Timestamp::unix_millis),
            self.unverified_ms,
            self.issued_at.unix_millis(),
        ] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for uuid in &self.gpus {
            bytes.extend_from_slice(uuid.as_bytes());
        }
        let texts = [
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
    /// a key**: [`TicketVerifier::verify_model`](crate::TicketVerifier::verify_model) does.
    ///
    /// # Errors
    ///
    /// [`TicketError::ModelVersion`] for a ticket of another version; [`TicketError::Malformed`] for
    /// any other input. Memory use is bounded by [`LEN_MAX`](Self::LEN_MAX) for every input.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        // First: other versions may have other lengths.
        if let Some(found) = version(DOMAINS, bytes).filter(|found| *found != u16::from(VERSION)) {
            return Err(TicketError::ModelVersion { found });
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
        let [version, flags] = rest.array("the version")?;
        let gpu_count = u16::from_le_bytes(rest.array("the number of GPUs")?);
        if usize::from(gpu_count) > TICKET_GPUS_MAX {
            return Err(TicketError::Malformed { what: "the number of GPUs" });
        }
        let nonce = rest.array("the nonce")?;
        let manager = rest.array("the manager")?;
        let signed_by = KeyId::from_bytes(rest.array("the ticket key's id")?);
        let root = rest.array("the root")?;
        let shard_count = rest.number("the number of shards")?;
        let plaintext_len = ByteLen::new(rest.number("the plaintext length")?);
        let authenticated = rest.number("the number of plaintext shards")?;
        let quarantined = rest.number("the number of altered shards")?;
        let admission = rest.number("the admission")?;
        let last_verified = rest.number("when it was last verified")?;
        let unverified_ms = rest.number("the unverified age")?;
        let issued_at = Timestamp::from_unix_millis(rest.number("when it was issued")?);
        let gpus = (0..gpu_count).map(|_| rest.array("the GPUs").map(DeviceUuid::new));
        let gpus = gpus.collect::<Result<_, _>>()?;
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
            model_id,
            owner: name(owner, OWNER),
            admission,
            gpus,
            shard_count,
            plaintext_len,
            authenticated,
            root,
            quarantined,
            signed_by,
            last_verified: (flags & VERIFIED != 0)
                .then(|| Timestamp::from_unix_millis(last_verified)),
            checked: checked_of(flags),
            unverified_ms,
            issued_at,
            signature: *signature,
        };
        // A ticket has one encoding: its version, no unknown flag, zeros where a field is absent,
        // GPUs that rise.
        match ticket.statement() {
            Some(again) if again == statement => Ok(ticket),
            _ => Err(TicketError::Malformed { what: "a field that no ticket has" }),
        }
    }
}
