//! What a failure of a store is answered with.

use axum::http::StatusCode;
use vram_residency::VramError;
use vram_store::{ManifestError, Room, StoreError};

use super::Problem;

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let (wrong, gateway) = (StatusCode::UNPROCESSABLE_ENTITY, StatusCode::BAD_GATEWAY);
        let say = |status, code, next: &str| Self::new(status, code, error.to_string(), next);
        match error {
            StoreError::File(file) => VramError::from(file.clone()).into(),
            StoreError::Seal(seal) => say(
                wrong,
                VramError::Seal(seal.clone()).code(),
                "check [key], and image and context of the model in vram.toml",
            ),
            StoreError::Address { .. } => {
                say(wrong, "store-address", "correct store or mirrors in vram.toml")
            }
            StoreError::NotFound { .. } => {
                say(
                    wrong,
                    "not-found",
                    "`vram store ls` lists what the store has; with manifest in vram.toml, mirrors and \
                     the cache are asked as well",
                )
            }
            StoreError::Ambiguous { .. } => {
                say(wrong, "ambiguous-manifest", "name one with manifest in vram.toml")
            }
            StoreError::Manifest { source, .. } => match &**source {
                ManifestError::UnknownKey { .. } => {
                    say(wrong, "unknown-key", "give the key that it was pushed with in [key]")
                }
                _ => say(wrong, "manifest", "push it again, or look who can write the store"),
            },
            StoreError::NoSource { .. } if error.is_integrity() => say(
                gateway,
                "source-lied",
                "`vram store verify` lists what was altered; add a mirror, or push again",
            ),
            StoreError::NoSource { .. } => {
                say(gateway, "no-source", "check the sources, or add a mirror").retry_in(10)
            }
            StoreError::Failed { .. } => {
                say(
                    gateway,
                    "store",
                    "check its address, that it is mounted or reachable, and the credentials in the \
                     environment; with manifest in vram.toml, mirrors and the cache are asked as well",
                )
                .retry_in(10)
            }
            StoreError::Deadline { .. } => say(
                StatusCode::SERVICE_UNAVAILABLE,
                "store-deadline",
                "try again, or give the model a longer deadline in vram.toml",
            )
            .retry_in(10),
            StoreError::Cancelled => {
                say(StatusCode::SERVICE_UNAVAILABLE, "cancelled", "load it again").retry_in(1)
            }
            StoreError::NoRoom { of, .. } => say(
                StatusCode::INSUFFICIENT_STORAGE,
                "no-room-on-disk",
                match of {
                    Room::Limit => "give a larger limit in [cache]",
                    _ => "free some of the disk",
                },
            ),
            _ => say(wrong, "store", "check the model's entry in vram.toml"),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}
