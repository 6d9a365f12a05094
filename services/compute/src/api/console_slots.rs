//! How many consoles are open: whoever has one token could open any number with it.

use maru_base::{Error, ErrorKind, Result};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Most consoles of one server that are open at once.
const OPEN_MAX: usize = 10;

/// Consoles that are open, by server.
#[derive(Debug, Default)]
pub(crate) struct Slots(Arc<Mutex<HashMap<String, usize>>>);

/// One open console; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    all: Arc<Mutex<HashMap<String, usize>>>,
    server: String,
}

impl Slots {
    /// Takes one of the server's.
    ///
    /// # Errors
    /// 429 when it has as many as it may.
    pub(crate) fn take(&self, server: &str) -> Result<Slot> {
        // Each change is one insertion or removal: a panic leaves nothing half done.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = all.entry(server.to_owned()).or_default();
        if *open >= OPEN_MAX {
            return Err(Error::new(
                ErrorKind::TooMany,
                format!("Server {server} has {OPEN_MAX} consoles open, the most that one can have; close one of them."),
            ));
        }
        *open += 1;
        Ok(Slot {
            all: Arc::clone(&self.0),
            server: server.to_owned(),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = all.get_mut(&self.server) {
            *open -= 1;
            if *open == 0 {
                all.remove(&self.server);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_server_has_a_few_consoles_open_and_others_are_not_concerned() {
        let slots = Slots::default();
        let mut open: Vec<Slot> = (0..OPEN_MAX).map(|_| slots.take("a").unwrap()).collect();
        assert_eq!(slots.take("a").unwrap_err().kind(), ErrorKind::TooMany);
        drop(slots.take("b").unwrap());
        open.pop();
        open.push(slots.take("a").unwrap());
        open.clear();
        assert!(slots.0.lock().unwrap().is_empty());
    }
}
