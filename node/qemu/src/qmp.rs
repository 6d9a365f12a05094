//! A QMP client: QEMU's machine protocol (docs/interop/qmp-spec.rst), JSON lines over a unix socket.
//!
//! ```text
//! connect ─▶ greeting ─▶ qmp_capabilities ─▶ commands (matched by id) ⇄ events (one channel, in order)
//! ```
//!
//! One task reads, callers write: a call registers its id, sends its line and waits for the answer with a deadline. When
//! the socket closes, every waiting and later call fails with [`QmpError::Closed`] and the event channel ends.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Longest line that is accepted from QEMU: query-qmp-schema, which we never ask for, has about 300 KiB.
const MAX_LINE: u64 = 4 << 20;
/// How long a command may take unless its caller knows better.
pub const USUAL: Duration = Duration::from_secs(10);

/// What can go wrong with a command.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// QEMU refused it: its error class and words.
    #[error("QEMU refused {command}: {desc}")]
    Refused {
        /// The command.
        command: String,
        /// `GenericError`, `DeviceNotFound`, `CommandNotFound`, ...
        class: String,
        /// QEMU's words.
        desc: String,
    },
    /// No answer in time.
    #[error("QEMU did not answer {command} within {seconds} s")]
    Timeout {
        /// The command.
        command: String,
        /// Seconds that it was given.
        seconds: u64,
    },
    /// The socket is closed: the process ended, or another client took over.
    #[error("QEMU's monitor is closed")]
    Closed,
    /// Something that is not QMP.
    #[error("QEMU's monitor said what is not understood: {0}")]
    Garbled(String),
}

impl From<QmpError> for maru_base::Error {
    fn from(e: QmpError) -> Self {
        match e {
            QmpError::Refused { .. } => Self::internal("the hypervisor refused the change", e),
            QmpError::Timeout { .. } | QmpError::Closed => {
                Self::unavailable("the guest's hypervisor process does not answer; try again").with_source(e)
            }
            QmpError::Garbled(_) => Self::internal("the hypervisor was not understood", e),
        }
    }
}

/// An event: its name and data.
#[derive(Debug, Clone, PartialEq)]
pub struct QmpEvent {
    /// `SHUTDOWN`, `STOP`, `DEVICE_DELETED`, ...
    pub name: String,
    /// Its data, `Null` if none.
    pub data: Value,
}

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Result<Value, (String, String)>>>>>>;

/// A connected monitor. Clones share the connection.
#[derive(Clone)]
pub struct Qmp {
    writer: mpsc::UnboundedSender<Outgoing>,
    waiting: Waiting,
    next: Arc<AtomicU64>,
    _reader: Arc<AbortOnDrop>,
}

/// A line to be sent, with a descriptor that travels along (SCM_RIGHTS).
struct Outgoing {
    line: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

struct AbortOnDrop(tokio::task::AbortHandle);
impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Qmp {
    /// Takes a connected socket: waits for the greeting, negotiates, and starts to read.
    ///
    /// # Errors
    /// `Timeout` when QEMU does not greet within `patience` (another client may hold the monitor), `Closed` when it ends.
    pub async fn negotiate(
        socket: StdUnixStream,
        patience: Duration,
    ) -> Result<(Self, mpsc::UnboundedReceiver<QmpEvent>), QmpError> {
        let stream = socket
            .set_nonblocking(true)
            .and_then(|()| UnixStream::from_std(socket))
            .map_err(|e| QmpError::Garbled(e.to_string()))?;
        let (read, write) = stream.into_split();
        let mut reader = BufReader::new(read);
        let late = || QmpError::Timeout {
            command: "the greeting".to_owned(),
            seconds: patience.as_secs(),
        };
        let greeting = tokio::time::timeout(patience, read_line(&mut reader))
            .await
            .map_err(|_| late())??
            .ok_or(QmpError::Closed)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Garbled(greeting.to_string().chars().take(200).collect()));
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (events, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(read_all(reader, waiting.clone(), events));
        let (writer, outgoing) = mpsc::unbounded_channel();
        // Ends when the last clone of `writer` is dropped. A task of its own, so that a caller that gives up half-way
        // never leaves half a line in the socket.
        tokio::spawn(write_all(write, outgoing));
        let qmp = Self {
            writer,
            waiting,
            next: Arc::new(AtomicU64::new(1)),
            _reader: Arc::new(AbortOnDrop(task.abort_handle())),
        };
        qmp.call_within("qmp_capabilities", json!({}), patience).await?;
        Ok((qmp, receiver))
    }

    /// Runs a command with the usual deadline.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn call(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.call_within(command, arguments, USUAL).await
    }

    /// Runs a command with its own deadline. A command that times out may still be carried out.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn call_within(&self, command: &str, arguments: Value, deadline: Duration) -> Result<Value, QmpError> {
        self.send(command, arguments, deadline, None).await
    }

    /// Hands a descriptor over to QEMU under a name, by which later commands know it.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn give(&self, name: &str, descriptor: OwnedFd) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), USUAL, Some(descriptor))
            .await
            .map(drop)
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        deadline: Duration,
        descriptor: Option<OwnedFd>,
    ) -> Result<Value, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(waiting) => drop(waiting.insert(id, sender)),
            None => return Err(QmpError::Closed),
        }
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let work = async {
            let outgoing = Outgoing {
                line: line.into_bytes(),
                descriptor,
            };
            self.writer.send(outgoing).map_err(|_| QmpError::Closed)?;
            receiver.await.map_err(|_| QmpError::Closed)
        };
        let answer = tokio::time::timeout(deadline, work).await;
        if let Some(waiting) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            waiting.remove(&id);
        }
        match answer {
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err((class, desc)))) => Err(QmpError::Refused {
                command: command.to_owned(),
                class,
                desc,
            }),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(QmpError::Timeout {
                command: command.to_owned(),
                seconds: deadline.as_secs(),
            }),
        }
    }

    /// Whether the socket is closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl std::fmt::Debug for Qmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Qmp").field("closed", &self.is_closed()).finish()
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Result<Option<Value>, QmpError> {
    let mut line = Vec::new();
    let read = (&mut *reader)
        .take(MAX_LINE)
        .read_until(b'\n', &mut line)
        .await
        .map_err(|_| QmpError::Closed)?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|_| QmpError::Garbled(String::from_utf8_lossy(&line).chars().take(200).collect()))
}

async fn read_all(mut reader: BufReader<OwnedReadHalf>, waiting: Waiting, events: mpsc::UnboundedSender<QmpEvent>) {
    loop {
        match read_line(&mut reader).await {
            Ok(Some(message)) => dispatch(message, &waiting, &events),
            Ok(None) | Err(QmpError::Closed) => break,
            Err(e) => {
                tracing::warn!(error = %e, "the monitor is given up");
                break;
            }
        }
    }
    // Dropping the senders tells everyone who waits.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
}

async fn write_all(mut write: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Outgoing>) {
    while let Some(Outgoing { line, descriptor }) = outgoing.recv().await {
        let sent = match descriptor {
            None => write.write_all(&line).await,
            Some(descriptor) => match send_with(write.as_ref(), &line, &descriptor).await {
                Ok(sent) => write.write_all(line.get(sent..).unwrap_or_default()).await,
                Err(e) => Err(e),
            },
        };
        // A closed socket is seen, and told to those who wait, by the reader.
        if sent.is_err() {
            return;
        }
    }
}

/// Sends the first bytes of a line together with a descriptor; says how many bytes went.
async fn send_with(stream: &UnixStream, line: &[u8], descriptor: &OwnedFd) -> std::io::Result<usize> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let descriptors = [descriptor.as_raw_fd()];
    loop {
        stream.writable().await?;
        let sent = stream.try_io(tokio::io::Interest::WRITABLE, || {
            let (bytes, control) = ([IoSlice::new(line)], [ControlMessage::ScmRights(&descriptors)]);
            Ok(sendmsg::<()>(
                stream.as_raw_fd(),
                &bytes,
                &control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?)
        });
        match sent {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

fn dispatch(mut message: Value, waiting: &Waiting, events: &mpsc::UnboundedSender<QmpEvent>) {
    if let Some(name) = message.get("event").and_then(Value::as_str) {
        let name = name.to_owned();
        let data = message.get_mut("data").map(Value::take).unwrap_or_default();
        let _ = events.send(QmpEvent { name, data });
        return;
    }
    let Some(id) = message.get("id").and_then(Value::as_u64) else {
        tracing::warn!(%message, "an answer without a question");
        return;
    };
    let sender = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_mut()
        .and_then(|w| w.remove(&id));
    let answer = match message.get("error") {
        Some(error) => {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            Err((text("class"), text("desc")))
        }
        None => Ok(message.get_mut("return").map(Value::take).unwrap_or_default()),
    };
    if let Some(sender) = sender {
        let _ = sender.send(answer);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    async fn pair() -> (
        BufReader<OwnedReadHalf>,
        OwnedWriteHalf,
        Qmp,
        mpsc::UnboundedReceiver<QmpEvent>,
    ) {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let (read, mut write) = UnixStream::from_std(theirs).unwrap().into_split();
        let mut read = BufReader::new(read);
        let server = async {
            write.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
            let hello = read_line(&mut read).await.unwrap().unwrap();
            assert_eq!(hello["execute"], "qmp_capabilities");
            write
                .write_all(format!("{{\"return\": {{}}, \"id\": {}}}\n", hello["id"]).as_bytes())
                .await
                .unwrap();
        };
        let (client, ()) = tokio::join!(Qmp::negotiate(ours, USUAL), server);
        let (qmp, events) = client.unwrap();
        (read, write, qmp, events)
    }

    #[tokio::test]
    async fn answers_are_matched_by_id_and_errors_are_typed() {
        let (mut read, mut write, qmp, mut events) = pair().await;
        let server = async {
            let a = read_line(&mut read).await.unwrap().unwrap();
            let b = read_line(&mut read).await.unwrap().unwrap();
            // Out of order, with an event between them.
            let text = format!(
                "{{\"error\": {{\"class\": \"DeviceNotFound\", \"desc\": \"no\"}}, \"id\": {}}}\n\
                 {{\"event\": \"STOP\", \"data\": {{\"x\": 1}}}}\n{{\"return\": \"first\", \"id\": {}}}\n",
                b["id"], a["id"]
            );
            write.write_all(text.as_bytes()).await.unwrap();
        };
        let (first, second, ()) = tokio::join!(qmp.call("one", json!({})), qmp.call("two", json!({})), server);
        assert_eq!(first.unwrap(), "first");
        assert!(matches!(second.unwrap_err(), QmpError::Refused { class, .. } if class == "DeviceNotFound"));
        assert_eq!(
            events.recv().await.unwrap(),
            QmpEvent {
                name: "STOP".into(),
                data: json!({"x": 1})
            }
        );
    }

    #[tokio::test]
    async fn a_closed_socket_fails_every_call_and_ends_the_events() {
        let (mut read, write, qmp, mut events) = pair().await;
        let server = async {
            read_line(&mut read).await.unwrap();
            drop((read, write));
        };
        let (call, ()) = tokio::join!(qmp.call("one", json!({})), server);
        assert!(matches!(call.unwrap_err(), QmpError::Closed));
        assert!(events.recv().await.is_none());
        assert!(matches!(
            qmp.call("two", json!({})).await.unwrap_err(),
            QmpError::Closed
        ));
        assert!(qmp.is_closed());
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        let (_read, _write, qmp, _events) = pair().await;
        let e = qmp
            .call_within("slow", json!({}), Duration::from_millis(20))
            .await
            .unwrap_err();
        assert!(matches!(e, QmpError::Timeout { .. }));
    }
}
