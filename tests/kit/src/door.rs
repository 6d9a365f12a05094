//! The wire between the nodes and the control plane: it outlives the control plane's lives.

use crate::gate::Gate;
use async_trait::async_trait;
use maru_agent_api::{
    ControlPlane, Delivery, Session,
    lane::{ByteStream, Lanes},
    observed::{Hello, Report},
};
use maru_base::{Error, Result};
use maru_nodes::Hub;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Where a node connects to: whatever life of the control plane is the present one.
#[derive(Default)]
pub(crate) struct Door {
    behind: Mutex<Option<(Arc<Hub>, Arc<Gate>)>>,
}

fn nobody() -> Error {
    Error::unavailable("the control plane is down")
}

impl Door {
    pub(crate) fn open(&self, hub: Arc<Hub>, gate: Arc<Gate>) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = Some((hub, gate));
    }
    pub(crate) fn shut(&self) {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    fn behind(&self) -> Result<(Arc<Hub>, Arc<Gate>)> {
        let behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        behind.filter(|(_, gate)| !gate.is_dead()).ok_or_else(nobody)
    }
    /// Asks the present life; when it ends meanwhile, the connection breaks.
    async fn ask<T>(&self, call: impl AsyncFnOnce(Arc<Hub>) -> Result<T>) -> Result<T> {
        let (hub, gate) = self.behind()?;
        tokio::select! {
            answer = call(hub) => answer,
            () = gate.dead() => Err(nobody()),
        }
    }
}

/// Hands the stream on until the control plane's life is over or the node hangs up.
async fn relay(gate: Arc<Gate>, mut from: mpsc::Receiver<Delivery>, to: mpsc::Sender<Delivery>) {
    loop {
        let delivery = tokio::select! {
            delivery = from.recv() => delivery,
            () = gate.dead() => return,
            () = to.closed() => return,
        };
        let Some(delivery) = delivery else { return };
        if to.send(delivery).await.is_err() {
            return;
        }
    }
}

#[async_trait]
impl ControlPlane for Door {
    async fn connect(&self, hello: Hello) -> Result<(Session, mpsc::Receiver<Delivery>)> {
        let (_, gate) = self.behind()?;
        let (session, from) = self.ask(async |hub| hub.connect(hello).await).await?;
        let (to, receiver) = mpsc::channel(1);
        tokio::spawn(relay(gate, from, to));
        Ok((session, receiver))
    }
    async fn report(&self, session: &Session, sequence: u64, reports: Vec<Report>) -> Result<()> {
        self.ask(async |hub| hub.report(session, sequence, reports).await).await
    }
    async fn heartbeat(&self, session: &Session) -> Result<()> {
        self.ask(async |hub| hub.heartbeat(session).await).await
    }
    async fn pull(&self, session: &Session, digest: &str) -> Result<ByteStream> {
        self.ask(async |hub| hub.pull(session, digest).await).await
    }
    async fn offer_lanes(&self, session: &Session, lanes: Arc<dyn Lanes>) -> Result<()> {
        self.ask(async |hub| hub.offer_lanes(session, lanes).await).await
    }
}
