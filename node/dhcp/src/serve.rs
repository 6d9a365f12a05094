//! The tasks that own the sockets.

use crate::socket::{Frames, Hears};
use crate::{Mac, Me, NetworkView, RaView, answer, frame, ra};
use maru_base::{Error, Result};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Messages of one guest that are answered at once, and then one each [`REFILL`].
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_millis(100);
/// The longest pause between advertisements (RFC 4861 allows 4 to 1800 s), and the pause while the router is new.
const PAUSE: Duration = Duration::from_secs(200);
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Where a network is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponderConfig {
    /// The namespace; `None` is this process's own.
    pub netns: Option<PathBuf>,
    /// The device in it.
    pub device: String,
    /// The device's MAC address.
    pub mac: String,
}

/// The DHCP server of one network; it ends when this is dropped.
#[derive(Debug)]
pub struct Responder {
    view: watch::Sender<Arc<NetworkView>>,
    _tasks: JoinSet<()>,
}

impl Responder {
    /// Starts the server. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The namespace or device is not there, or packet sockets are not allowed.
    pub fn start(config: &ResponderConfig, view: Arc<NetworkView>) -> Result<Self> {
        let mac = parse_mac(&config.mac)?;
        let (sender, receiver) = watch::channel(view);
        let mut tasks = JoinSet::new();
        for hears in [Hears::Dhcp4, Hears::Dhcp6] {
            let frames = Frames::open(config.netns.as_deref(), &config.device, hears)?;
            tasks.spawn(respond(frames, Me { mac }, receiver.clone()));
        }
        Ok(Self {
            view: sender,
            _tasks: tasks,
        })
    }

    /// From now on this view is answered from.
    pub fn update(&self, view: Arc<NetworkView>) {
        self.view.send_if_modified(|now| {
            let other = *now != view;
            *now = view;
            other
        });
    }
}

fn parse_mac(text: &str) -> Result<Mac> {
    Mac::parse(text).ok_or_else(|| Error::bad_request(format!("{text:?} is not a MAC address.")))
}

/// A token bucket a guest; as many as the network has guests.
#[derive(Default)]
struct Limiter(HashMap<Mac, (u32, Instant)>);

impl Limiter {
    fn admits(&mut self, mac: Mac, now: Instant) -> bool {
        let (tokens, since) = self.0.entry(mac).or_insert((BURST, now));
        let gained = (now.duration_since(*since).as_millis() / REFILL.as_millis()) as u32;
        if gained > 0 {
            *tokens = tokens.saturating_add(gained).min(BURST);
            *since = now;
        }
        if *tokens == 0 {
            return false;
        }
        *tokens -= 1;
        true
    }
}

fn sender(frame: &[u8]) -> Option<Mac> {
    Some(Mac(frame.get(6..12)?.try_into().ok()?))
}

async fn respond(frames: Frames, me: Me, view: watch::Receiver<Arc<NetworkView>>) {
    let mut buffer = Frames::buffer();
    let mut limiter = Limiter::default();
    loop {
        let frame = match frames.next(&mut buffer).await {
            Ok(frame) => frame,
            Err(e) => {
                // The device is gone or down (ENETDOWN): whoever removed it drops this task; else it comes back.
                tracing::debug!(error = %e, "no frame could be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let now = Arc::clone(&view.borrow());
        let Some(mac) = sender(frame).filter(|mac| now.resident(*mac).is_some()) else {
            continue;
        };
        if !limiter.admits(mac, Instant::now()) {
            continue;
        }
        limiter.0.retain(|mac, _| now.resident(*mac).is_some());
        if let Some(reply) = answer(&now, me, frame) {
            tracing::debug!(network = %now.network.id, %mac, "a DHCP message was answered");
            frames.send(&reply);
        }
    }
}

/// Sends the router advertisements of one interface of a router; a last one says good-bye when this is dropped.
#[derive(Debug)]
pub struct Advertiser {
    view: watch::Sender<RaView>,
    _tasks: JoinSet<()>,
}

impl Advertiser {
    /// Starts it on `device` in the router's namespace. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The namespace or device is not there, or packet sockets are not allowed.
    pub fn start(netns: Option<PathBuf>, device: &str, view: RaView) -> Result<Self> {
        let frames = Frames::open(netns.as_deref(), device, Hears::Solicitations)?;
        let (sender, receiver) = watch::channel(view);
        let mut tasks = JoinSet::new();
        tasks.spawn(advertise(
            GoodBye {
                frames,
                view: receiver.clone(),
            },
            receiver,
        ));
        Ok(Self {
            view: sender,
            _tasks: tasks,
        })
    }

    /// From now on this is advertised.
    pub fn update(&self, view: RaView) {
        self.view.send_if_modified(|now| {
            let other = *now != view;
            *now = view;
            other
        });
    }
}

/// Says good-bye when the task is ended.
struct GoodBye {
    frames: Frames,
    view: watch::Receiver<RaView>,
}

impl Drop for GoodBye {
    fn drop(&mut self) {
        if let Some(frame) = ra::advertise(&self.view.borrow(), None, true) {
            self.frames.send(&frame);
        }
    }
}

async fn advertise(link: GoodBye, mut view: watch::Receiver<RaView>) {
    let mut buffer = Frames::buffer();
    let mut sent = 0_u32;
    let mut next = Instant::now();
    let mut limiter = Limiter::default();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {
                let frame = ra::advertise(&view.borrow_and_update(), None, false);
                if let Some(frame) = frame {
                    link.frames.send(&frame);
                }
                sent = sent.saturating_add(1);
                // A random part keeps routers from speaking all at once (RFC 4861 section 6.2.4).
                let pause = if sent < 4 { FIRST_PAUSE } else { PAUSE };
                next = Instant::now() + pause + Duration::from_millis(maru_base::random::below(2000));
            }
            changed = view.changed() => {
                if changed.is_err() {
                    return;
                }
                (sent, next) = (0, Instant::now());
            }
            read = link.frames.next(&mut buffer) => match read {
                Ok(frame) => {
                    // All guests of the link share one bucket: an unknown sender must not grow a table.
                    let asks = frame::solicitation(frame).is_some() && limiter.admits(Mac([0; 6]), Instant::now());
                    if let Some(reply) = asks.then(|| ra::answer(&view.borrow(), frame)).flatten() {
                        link.frames.send(&reply);
                    }
                }
                Err(e) => {
                    tracing::debug!(error = %e, "no frame could be read");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_cut_and_the_quiet_are_served() {
        let mut limiter = Limiter::default();
        let (noisy, quiet) = (Mac([1; 6]), Mac([2; 6]));
        let admitted = (0..1000).filter(|_| limiter.admits(noisy, Instant::now())).count();
        assert_eq!(admitted, 20);
        assert!(limiter.admits(quiet, Instant::now()));
        tokio::time::advance(Duration::from_millis(250)).await;
        let admitted = (0..1000).filter(|_| limiter.admits(noisy, Instant::now())).count();
        assert_eq!(admitted, 2);
    }
}
