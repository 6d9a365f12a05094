//! Records: append-only with retention, in files of their own (audit, instance actions and events; later samples).

mod file;
mod mem;
mod segment;

pub use file::{FileRecords, Retention};
pub use mem::MemRecords;

use maru_base::Result;

/// Where records go. One stream per name (`audit`, `server-event`); each record belongs to a `subject` (a server's id).
#[async_trait::async_trait]
pub trait Records: Send + Sync + 'static {
    /// Appends one record and returns once it is durable.
    async fn append(&self, stream: &str, subject: &str, record: serde_json::Value) -> Result<()>;
    /// The records of one subject, oldest first, at most the newest `limit`.
    async fn of_subject(&self, stream: &str, subject: &str, limit: usize) -> Result<Vec<serde_json::Value>>;
    /// The newest records of a stream, oldest first.
    async fn tail(&self, stream: &str, limit: usize) -> Result<Vec<serde_json::Value>>;
}
