//! Sealed images: `vram seal`, `unseal`, `verify` and `inspect`.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::path::Path;
use std::time::Instant;

use vram_residency::{
    ByteLen, CancelToken, Expected, FileSource, ImageOptions, KeyRing, Overwrite, Protection,
    RecordFields, SealContext, SealParams, SivScope, Suite, inspect_image, seal_image,
    unseal_image, verify_image,
};

use crate::args::{BoundArgs, ExpectArgs, InspectArgs, Mode, SealArgs, UnsealArgs, VerifyArgs};
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Bar;
use crate::{interrupt, keys, table};

/// Longest description that `--metadata` takes: it is a description, not content.
const METADATA_LEN_MAX: u64 = 64 << 20;
