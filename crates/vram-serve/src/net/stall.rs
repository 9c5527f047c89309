//! A stream that notices clients that are of no use any more: one that takes nothing for too long, and one
//! that has gone while nothing reads from it.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

/// How often a client is looked at while nothing reads from its stream.
const LOOK: Duration = Duration::from_millis(250);

/// A stream whose writes fail after the client has taken nothing for a time, or when the client has gone
/// and nothing reads from it.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits for the client.
    waiting: Option<Pin<Box<Sleep>>>,
    /// True while a read waits for the client: the end of its stream is seen at once then.
    listens: bool,
    /// Runs to the next look at the client while nothing reads. hyper reads no more while it answers a request
    /// behind which further bytes came, and does not see the client go.
    look: Option<Pin<Box<Sleep>>>,
}

/// A stream that tells whether its client has closed it, also while bytes of the client wait to be read.
pub(super) trait Hangup {
    fn has_hung_up(&self, context: &mut Context<'_>) -> bool;
}

/// Generates the look at a socket.
macro_rules! hangup {
    ($($stream:ty),*) => {$(
        impl Hangup for $stream {
            fn has_hung_up(&self, context: &mut Context<'_>) -> bool {
                let ready = core::pin::pin!(self.ready(Interest::READABLE));
                matches!(ready.poll(context), Poll::Ready(Ok(ready)) if ready.is_read_closed())
            }
        }
    )*};
}

hangup!(TcpStream, UnixStream);

impl Hangup for TlsStream<TcpStream> {
    fn has_hung_up(&self, context: &mut Context<'_>) -> bool {
        self.get_ref().0.has_hung_up(context)
    }
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None, listens: false, look: None }
    }

    /// An error if the client has gone while nothing reads from the stream; looks every [`LOOK`].
    fn look(&mut self, context: &mut Context<'_>) -> io::Result<()>
    where
        S: Hangup,
    {
        if self.listens {
            self.look = None;
            return Ok(());
        }
        let look = self.look.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while look.as_mut().poll(context).is_ready() {
            if self.stream.has_hung_up(context) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            look.set(sleep(LOOK));
        }
        Ok(())
    }

    /// The outcome of a write, or an error if it has waited for too long.
    fn judge<T>(
        &mut self,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_read(context, buffer);
        this.listens = outcome.is_pending();
        outcome
    }
}

impl<S: AsyncWrite + Hangup + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.judge(outcome, context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.judge(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        match this.judge(outcome, context) {
            // hyper flushes whenever it has nothing else to do.
            Poll::Ready(Ok(())) => Poll::Ready(this.look(context)),
            other => other,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(context);
        this.judge(outcome, context)
    }
}
