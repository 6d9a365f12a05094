//! A connection's bytes and its idleness: what bounds a client that stops reading, or never speaks.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep},
};

/// A stream whose writes end in an error when the other side takes nothing for a time.
pub(crate) struct Deadlined<S> {
    inner: S,
    limit: Duration,
    stalled: Pin<Box<Sleep>>,
    /// Whether the last write was left waiting, so that `stalled` runs.
    waiting: bool,
}

impl<S> Deadlined<S> {
    pub(crate) fn new(inner: S, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            stalled: Box::pin(tokio::time::sleep(limit)),
            waiting: false,
        }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.waiting = false;
            return poll;
        }
        if !self.waiting {
            self.waiting = true;
            self.stalled.as_mut().reset(Instant::now() + self.limit);
        }
        ready!(self.stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client took nothing for too long",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Deadlined<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Deadlined<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(context, buf);
        self.watch(context, poll)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(context, bufs);
        self.watch(context, poll)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(context);
        self.watch(context, poll)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(context);
        self.watch(context, poll)
    }
}

/// What goes on in a connection.
///
/// A request is under way until its handler has answered and, if the answer is a stream, until that has ended. A stream waits for
/// its source (a disk, a guest's console), which may take its time, or for the client, which may not.
#[derive(Default)]
pub(crate) struct Activity {
    /// Handlers that run and streams that have not ended.
    running: AtomicUsize,
    /// Of them: handlers, and streams that wait for their source.
    waiting: AtomicUsize,
    /// Changes of `running`, and pieces of streams that were taken.
    moves: AtomicUsize,
    changed: Notify,
}

impl Activity {
    /// Counts a request, until what is returned is dropped. Its handler runs.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.moved();
        Busy {
            activity: Arc::clone(self),
            waiting: true,
        }
    }
    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
    /// Waits until no request has been under way for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            if self.running.load(Ordering::SeqCst) > 0 {
                self.changed.notified().await;
            } else if tokio::time::timeout(limit, self.changed.notified()).await.is_err()
                && self.running.load(Ordering::SeqCst) == 0
            {
                return;
            }
        }
    }
    /// Waits until for `limit` all that was under way were streams of which the client took nothing.
    pub(crate) async fn stalled(&self, limit: Duration) {
        let stands = || self.running.load(Ordering::SeqCst) > 0 && self.waiting.load(Ordering::SeqCst) == 0;
        let mut at = (self.moves.load(Ordering::SeqCst), stands());
        loop {
            // No wake-up for each piece: looking now and then is exact enough, and costs a stream nothing.
            tokio::time::sleep(limit / 2).await;
            let now = (self.moves.load(Ordering::SeqCst), stands());
            if now == at && now.1 {
                tokio::time::sleep(limit / 2).await;
                if (self.moves.load(Ordering::SeqCst), stands()) == at {
                    return;
                }
            }
            at = now;
        }
    }
}

/// A request that is under way.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    waiting: bool,
}

impl Busy {
    /// A piece of the answer was asked for: it was there and is taken, or its source must be waited for.
    pub(crate) fn asked(&mut self, source_waits: bool) {
        if source_waits != self.waiting {
            self.waiting = source_waits;
            if source_waits {
                self.activity.waiting.fetch_add(1, Ordering::SeqCst);
            } else {
                self.activity.waiting.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.activity.moves.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.waiting {
            self.activity.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        self.activity.running.fetch_sub(1, Ordering::SeqCst);
        self.activity.moved();
    }
}
