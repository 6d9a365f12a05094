//! Byte lanes: on demand, authorised by the control plane, bounded, never changing intent.

use async_trait::async_trait;
use maru_base::Result;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream of bytes from somewhere.
pub type ByteStream = Box<dyn AsyncRead + Send + Unpin>;

/// A two-way stream of bytes.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What can be opened on a node.
#[async_trait]
pub trait Lanes: Send + Sync + 'static {
    /// The newest `lines` lines of a server's serial log (all that is kept, if `None`).
    async fn console_log(&self, server: &str, lines: Option<usize>) -> Result<Vec<u8>>;
    /// A server's VNC socket.
    async fn vnc(&self, server: &str) -> Result<Box<dyn Duplex>>;
    /// A server's serial console.
    async fn serial(&self, server: &str) -> Result<Box<dyn Duplex>>;
    /// The bytes of a server's system disk as one flat qcow2, for a snapshot.
    async fn disk_image(&self, server: &str) -> Result<ByteStream>;
    /// The bytes of a volume or a snapshot of this node as of now, as a file of `format` (`raw` or `qcow2`).
    async fn volume_bytes(&self, id: &str, format: &str) -> Result<ByteStream>;
    /// Live figures of a server (Nova's diagnostics), as the hypervisor gives them.
    async fn diagnostics(&self, server: &str) -> Result<serde_json::Value>;
    /// Sends a running server a non-maskable interrupt.
    async fn inject_nmi(&self, server: &str) -> Result<()>;
    /// The password that a server posted to its metadata service (encrypted by the guest with its user's key), if it did.
    async fn password(&self, server: &str) -> Result<Option<Vec<u8>>> {
        let _ = server;
        Ok(None)
    }
    /// Forgets that password, so that the server may post another.
    async fn clear_password(&self, server: &str) -> Result<()> {
        let _ = server;
        Ok(())
    }
    /// Pulls an image into the node's cache, so that a server made of it does not wait for it; returns when it is there. `format` is
    /// what inspection proved.
    async fn cache_image(&self, digest: &str, format: &str) -> Result<()> {
        let _ = (digest, format);
        Err(maru_base::Error::not_implemented("This node keeps no images."))
    }
    /// What the last slice item of a server said of its origin ([`crate::slice::Server::origin`]); empty when it said nothing.
    async fn origin(&self, server: &str) -> Result<String>;
    /// Removes a thing that the store does not know from the machine: what an [`crate::observed::UnknownThing`] named.
    async fn discard(&self, what: &str, id: &str) -> Result<()>;
}
