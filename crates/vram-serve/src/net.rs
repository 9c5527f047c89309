//! Connections: accepted up to a bound, refused politely beyond it, watched for stalls.

mod accept;
mod bind;
mod peer;
mod stall;
mod tls;

pub(crate) use self::accept::{Bounds, serve};
pub(crate) use self::bind::{BindError, Bound, bind, is_in_use, may_bind, may_make_in};
pub(crate) use self::peer::Peer;
pub(crate) use self::tls::acceptor;
