//! Records in memory, for tests.

use super::Records;
use maru_base::Result;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

type Streams = HashMap<String, Vec<(String, Value)>>;

/// See the module.
#[derive(Default)]
pub struct MemRecords(Mutex<Streams>);

impl MemRecords {
    /// Without any record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn newest(&self, stream: &str, limit: usize, wanted: impl Fn(&str) -> bool) -> Vec<Value> {
        let streams = self.lock();
        let of_stream = streams.get(stream).into_iter().flatten().rev();
        let mut found: Vec<_> = of_stream
            .filter(|(s, _)| wanted(s))
            .take(limit)
            .map(|(_, v)| v.clone())
            .collect();
        found.reverse();
        found
    }
}

#[async_trait::async_trait]
impl Records for MemRecords {
    async fn append(&self, stream: &str, subject: &str, record: Value) -> Result<()> {
        self.lock()
            .entry(stream.to_owned())
            .or_default()
            .push((subject.to_owned(), record));
        Ok(())
    }
    async fn of_subject(&self, stream: &str, subject: &str, limit: usize) -> Result<Vec<Value>> {
        Ok(self.newest(stream, limit, |s| s == subject))
    }
    async fn tail(&self, stream: &str, limit: usize) -> Result<Vec<Value>> {
        Ok(self.newest(stream, limit, |_| true))
    }
}
