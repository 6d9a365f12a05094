//! Reading a blob.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    task::{JoinHandle, spawn_blocking},
};

/// Bytes of one read. Large, because each is a round trip to the blocking threads.
const CHUNK: u64 = 1 << 20;

/// A blob, or a range of one. `AsyncRead` for those who want it, [`BlobReader::into_stream`] for an HTTP body.
pub struct BlobReader {
    file: Arc<File>,
    /// The whole blob's size.
    total: u64,
    length: u64,
    at: u64,
    end: u64,
    /// The read that runs ahead while the last chunk is being sent.
    ahead: Option<JoinHandle<io::Result<Bytes>>>,
    chunk: Bytes,
}

fn read_at(file: &File, at: u64, length: u64) -> io::Result<Bytes> {
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut buffer, at)?;
    Ok(buffer.into())
}

impl BlobReader {
    pub(crate) fn new(file: File, total: u64, start: u64, end: u64) -> Self {
        let (file, chunk) = (Arc::new(file), Bytes::new());
        Self {
            file,
            total,
            length: end - start,
            at: start,
            end,
            ahead: None,
            chunk,
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

    fn read_ahead(&mut self) {
        if self.ahead.is_none() && self.at < self.end {
            let (file, at, length) = (Arc::clone(&self.file), self.at, CHUNK.min(self.end - self.at));
            self.at += length;
            self.ahead = Some(spawn_blocking(move || read_at(&file, at, length)));
        }
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.read_ahead();
        let Some(ahead) = &mut self.ahead else {
            return Poll::Ready(Ok(None));
        };
        let read = std::task::ready!(Pin::new(ahead).poll(context));
        self.ahead = None;
        let chunk = read.map_err(io::Error::other)??;
        self.read_ahead();
        Poll::Ready(Ok(Some(chunk)))
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
