//! Where a server listens, and where its files are if the configuration does not say.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::str::FromStr;
use std::env;
use std::path::{Path, PathBuf};

/// The port on loopback, where there is no folder for a socket.
const PORT: u16 = 8726;

/// An address that a server listens on, and that a client connects to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listen {
    /// A Unix socket, which its owner alone can open: `unix:/run/vram/serve.sock`.
    Unix(PathBuf),
    /// An address and a port: `127.0.0.1:8726`. Beyond loopback only with TLS.
    Tcp(SocketAddr),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(address) => address.ip().is_loopback(),
        }
    }

    /// Whether two addresses cannot both be listened on.
    pub(super) fn takes(&self, other: &Self) -> bool {
        let (one, other) = match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => (one, other),
            (one, other) => return one == other,
        };
        // `[::]` stands for all addresses, `0.0.0.0` for those of IPv4.
        let covers = |all: IpAddr, one: IpAddr| {
            all == one || (all.is_unspecified() && (all.is_ipv6() || one.is_ipv4()))
        };
        let (ip, with) = (one.ip(), other.ip());
        // For port 0 the system chooses one that is free.
        one.port() == other.port() && one.port() != 0 && (covers(ip, with) || covers(with, ip))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("`unix:` names no path; write it like unix:/run/vram/serve.sock".into()),
                _ if !Path::new(path).is_absolute() => {
                    Err(format!("the socket of `{text}` needs an absolute path"))
                }
                _ => Ok(Self::Unix(path.into())),
            };
        }
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        if let Some(port) = port {
            return Ok(Self::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self::Tcp).map_err(|_not_one| {
            format!(
                "`{text}` is not an address; write unix:/run/vram/serve.sock, 127.0.0.1:{PORT} or \
                 [::1]:{PORT}"
            )
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// The folder of this user's sockets, if the system has one.
fn runtime_folder() -> Option<PathBuf> {
    absolute("XDG_RUNTIME_DIR").map(|folder| folder.join("vram"))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where a server listens if nothing is said: `$XDG_RUNTIME_DIR/vram/serve.sock`, or port 8726 of
/// loopback where that variable is not set.
#[must_use]
pub fn default_listen() -> Listen {
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);
    runtime_folder().map_or(Listen::Tcp(loopback), |folder| Listen::Unix(folder.join("serve.sock")))
}

/// Where the token is if nothing is said: `$XDG_STATE_HOME/vram/token`, by default
/// `~/.local/state/vram/token`; it outlives a restart.
#[must_use]
pub fn default_token_file() -> PathBuf {
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from("/var/lib")).join("vram/token")
}

/// The configuration that is read if none is named: `vram.toml` in this folder, else
/// `/etc/vram/vram.toml`.
#[must_use]
pub fn default_config() -> PathBuf {
    let here = PathBuf::from("vram.toml");
    let system = PathBuf::from("/etc/vram/vram.toml");
    if !here.exists() && system.exists() { system } else { here }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_whether_others_can_reach_it() {
        for (text, local) in [
            ("unix:/run/x.sock", true),
            ("127.0.0.1:1", true),
            ("localhost:80", true),
            ("[::1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.0.2.1:443", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.is_local(), local, "{text}");
        }
        for wrong in ["", "unix:", "unix:x.sock", "127.0.0.1", "example.org:80", ":80", "1:2:3"] {
            assert!(wrong.parse::<Listen>().is_err(), "{wrong}");
        }
    }
}
