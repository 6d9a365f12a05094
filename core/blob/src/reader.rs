//! Reading a blob.
//!
//! What the page cache holds is read at once, on the async thread: that costs a copy and no wait, and the copy is still
//! in the processor's cache when the socket takes it. What the disk must fetch is read by a blocking thread, one chunk
//! ahead of the one that is being sent. Buffers are used again once the socket is done with them: a fresh one for each
//! chunk costs as much in page faults as the reading itself. All in all this takes no more processor than `sendfile`.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use rustix::io::{Errno, ReadWriteFlags};
use std::{
    fs::File,
    io::{self, IoSliceMut},
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    task::{JoinHandle, spawn_blocking},
};

/// Bytes of one read: large enough that a round trip to a blocking thread does not count, small enough that what was
/// read is still in the processor's cache when it is sent.
const CHUNK: usize = 256 << 10;
/// Buffers of one reader: one that is being sent, one that waits, one that is being filled.
const BUFFERS: usize = 3;

/// A blob, or a range of one. `AsyncRead` for those who want it, [`BlobReader::into_stream`] for an HTTP body.
pub struct BlobReader {
    file: Arc<File>,
    /// The whole blob's size.
    total: u64,
    length: u64,
    at: u64,
    end: u64,
    /// The read that runs ahead while the last chunk is being sent.
    ahead: Option<JoinHandle<io::Result<(BytesMut, usize)>>>,
    /// Our hands on the buffers that were given out.
    given: Vec<Bytes>,
    chunk: Bytes,
}

/// Reads what needs no wait; `None` when the disk would have to be asked.
fn read_cached(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::NOWAIT) {
        // Nothing at all is the end of a file that is shorter than it was: the other way says so.
        Ok(0) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR | Errno::INVAL) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(e) => Err(e.into()),
    }
}

impl BlobReader {
    pub(crate) fn new(file: File, total: u64, start: u64, end: u64) -> Self {
        Self {
            file: Arc::new(file),
            total,
            length: end - start,
            at: start,
            end,
            ahead: None,
            given: Vec::with_capacity(BUFFERS),
            chunk: Bytes::new(),
        }
    }
    /// Size of the whole blob.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }
    /// How many bytes this reader yields in all.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// A buffer that nobody reads from any more, or a new one.
    fn buffer(&mut self, length: usize) -> BytesMut {
        let mut at = 0;
        while at < self.given.len() {
            match self.given.swap_remove(at).try_into_mut() {
                Ok(buffer) if buffer.len() >= length => return buffer,
                Ok(_) => {}
                Err(still) => {
                    self.given.push(still);
                    let last = self.given.len() - 1;
                    self.given.swap(at, last);
                    at += 1;
                }
            }
        }
        BytesMut::zeroed(length)
    }

    /// Gives out the first `n` bytes of a buffer.
    fn give(&mut self, buffer: BytesMut, n: usize) -> Bytes {
        let whole = buffer.freeze();
        let part = whole.slice(..n);
        // A consumer that keeps all chunks must not make us keep them twice.
        if self.given.len() == BUFFERS {
            self.given.swap_remove(0);
        }
        self.given.push(whole);
        part
    }

    /// Bytes of the next chunk, at most.
    fn next_length(&self) -> usize {
        usize::try_from(self.end - self.at).unwrap_or(CHUNK).min(CHUNK)
    }

    fn read_ahead(&mut self, mut buffer: BytesMut) {
        let (file, at, length) = (Arc::clone(&self.file), self.at, self.next_length());
        self.at += length as u64;
        self.ahead = Some(spawn_blocking(move || {
            file.read_exact_at(&mut buffer[..length], at)?;
            Ok((buffer, length))
        }));
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.ahead.is_none() {
            if self.at == self.end {
                return Poll::Ready(Ok(None));
            }
            let length = self.next_length();
            let mut buffer = self.buffer(length);
            if let Some(n) = read_cached(&self.file, self.at, &mut buffer[..length])? {
                self.at += n as u64;
                return Poll::Ready(Ok(Some(self.give(buffer, n))));
            }
            self.read_ahead(buffer);
        }
        let Some(ahead) = &mut self.ahead else {
            return Poll::Ready(Ok(None));
        };
        let read = std::task::ready!(Pin::new(ahead).poll(context));
        self.ahead = None;
        let (buffer, n) = read.map_err(io::Error::other)??;
        // Where one chunk had to be fetched, the next will have to be, too.
        if self.at < self.end {
            let next = self.buffer(self.next_length());
            self.read_ahead(next);
        }
        Poll::Ready(Ok(Some(self.give(buffer, n))))
    }

    /// The bytes in large chunks.
    pub fn into_stream(mut self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::poll_fn(move |context| self.poll_chunk(context).map(io::Result::transpose)).fuse()
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() {
            match std::task::ready!(self.poll_chunk(context))? {
                Some(chunk) => self.chunk = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.chunk.len().min(out.remaining());
        out.put_slice(&self.chunk.split_to(n));
        Poll::Ready(Ok(()))
    }
}
