//! Options that say where a key comes from.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

/// The group of the options that name a key.
pub(crate) const GROUP: &str = "key";

/// The heading of these options in the help. An option of its own each: a heading for all would go
/// on over the options that follow.
const HEADING: &str = "Key, one of these";

/// Where the key comes from. At most one of them; the commands that need one require the group.
#[derive(Args, Debug)]
#[group(skip)]
#[command(group = ArgGroup::new(GROUP).multiple(false))]
pub(crate) struct KeyArgs {
    /// A key file, as `vram keygen` writes it.
    #[arg(id = "key_file", help_heading = HEADING, long = "key-file", value_name = "FILE", group = GROUP)]
    pub(crate) file: Option<PathBuf>,
    /// An environment variable with the key in hexadecimal digits. Other processes of the same user
    /// read it in /proc/PID/environ, and it cannot be wiped: prefer another way.
    #[arg(id = "key_env", help_heading = HEADING, long = "key-env", value_name = "NAME", group = GROUP)]
    pub(crate) env: Option<String>,
    /// The number of an open descriptor with the key, as in `--key-fd 3 3<FILE`; 0 is standard
    /// input.
    #[arg(id = "key_fd", help_heading = HEADING, long = "key-fd", value_name = "N", group = GROUP)]
    pub(crate) fd: Option<u32>,
    /// A credential that systemd passes to its service (`LoadCredential=NAME:FILE`).
    #[arg(id = "key_credential", help_heading = HEADING, long = "key-credential", value_name = "NAME", group = GROUP)]
    pub(crate) credential: Option<String>,
    /// Who may read the key file.
    #[arg(id = "key_mode", help_heading = HEADING, long = "key-mode", value_enum, value_name = "MODE", default_value_t = KeyMode::Private, requires = "key_file")]
    pub(crate) mode: KeyMode,
}

/// Who may read a key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyMode {
    /// Its owner alone: mode 0600 or stricter.
    Private,
    /// A group as well, as orchestrators mount secrets: mode 0640 or stricter.
    GroupReadable,
}
