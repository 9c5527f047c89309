//! The process at the other end of a Unix socket.

use core::time::Duration;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::net::UnixStream;
use tokio::time::sleep;

/// The process that opened a connection, held by a descriptor: its number is used again when it has
/// ended, the descriptor is not.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) pid: u32,
    process: Arc<OwnedFd>,
}

impl Peer {
    /// The process that opened this connection.
    ///
    /// # Errors
    ///
    /// The operating system's; [`io::ErrorKind::NotFound`] for a process of another namespace.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        // Asked for as soon as the connection is accepted: a process that ended since is not found,
        // and its number is not given again within moments.
        let process = Arc::new(pidfd_open(pid, PidfdFlags::empty())?);
        let pid = u32::try_from(pid.as_raw_nonzero().get()).map_err(|_| io::ErrorKind::NotFound)?;
        Ok(Self { pid, process })
    }

    /// Waits until the process has ended: all of its memory is gone then, that of cards included.
    ///
    /// The runtime takes descriptors of this kind only by an `unsafe` call, so it is asked again and
    /// again: the end is seen within [`LOOK`].
    ///
    /// # Errors
    ///
    /// The operating system's, if it does not say.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        while !self.has_ended()? {
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn has_ended(&self) -> io::Result<bool> {
        let mut asked = [PollFd::new(&*self.process, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut asked, Some(&at_once)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(50);
