//! The administrator's door into a running `maru up`: `<data>/maru.sock`, which only root may open.
//!
//! One request a connection: a line of JSON (`{"do": "status"}`), answered by a line of JSON or, where the answer is
//! long, by several. There is no token: who may open the socket owns the machine.

use crate::{
    options::{Backup, Debug, DebugWhat, Status, Token, Unknown},
    show,
};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Ask {
    /// Health, versions, options.
    Status,
    /// Stop the process; with `guests`, the guests and links as well.
    Stop {
        /// Guests too.
        guests: bool,
    },
    /// Write a backup.
    Backup {
        /// Absolute path of a file that does not exist.
        file: PathBuf,
    },
    /// Take an unknown thing back or remove it.
    Unknown {
        /// `server`, `disk`, `network`, `router`.
        what: String,
        /// Its id.
        id: String,
        /// The node, if several have one.
        #[serde(default)]
        node: Option<String>,
        /// Adopt rather than discard.
        adopt: bool,
    },
    /// Objects whose key begins so.
    Dump {
        /// The beginning.
        prefix: String,
    },
    /// Compare mirror and engine.
    Check,
    /// What happened to a server.
    Story {
        /// Its id.
        server: String,
    },
    /// Make a join token.
    Token {
        /// The only name that it is good for.
        #[serde(default)]
        node: Option<String>,
        /// Hours that it is good for.
        hours: u32,
    },
}

/// Answers the requests of the socket.
#[async_trait::async_trait]
pub trait Answer: Send + Sync + 'static {
    /// Answers one request.
    async fn answer(&self, ask: &Ask) -> Result<Value>;
    /// Does what may only begin when the answer has left: what ends the process would take the answer along.
    fn answered(&self, ask: &Ask);
}

/// Path of the socket.
#[must_use]
pub fn socket(data: &Path) -> PathBuf {
    data.join("maru.sock")
}

/// Serves the socket until dropped.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve(data: &Path, answer: std::sync::Arc<dyn Answer>) -> Result<tokio::task::JoinHandle<()>> {
    let path = socket(data);
    // A socket that a killed process left behind; the data directory's lock says that nobody else is there.
    if path.exists() {
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("cannot make {}", path.display()))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            };
            let answer = std::sync::Arc::clone(&answer);
            tokio::spawn(async move {
                if let Err(error) = one(stream, answer).await {
                    tracing::debug!(%error, "administrator's request");
                }
            });
        }
    }))
}

async fn one(stream: UnixStream, answer: std::sync::Arc<dyn Answer>) -> Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(64 << 10)).read_line(&mut line).await?;
    let asked = serde_json::from_str::<Ask>(&line);
    let outcome = match &asked {
        Ok(ask) => answer.answer(ask).await,
        Err(e) => Err(anyhow::anyhow!("not a request that this version knows: {e}")),
    };
    let reply = match outcome {
        Ok(value) => serde_json::json!({ "ok": value }),
        Err(e) => serde_json::json!({ "error": format!("{e:#}") }),
    };
    let written = write.write_all(format!("{reply}\n").as_bytes()).await;
    if let Ok(ask) = &asked {
        answer.answered(ask);
    }
    Ok(written?)
}

/// Asks a running cloud.
///
/// # Errors
/// When none runs on this data directory, or it refuses.
pub async fn ask(data: &Path, ask: &Ask) -> Result<Value> {
    let path = socket(data);
    let mut stream = UnixStream::connect(&path).await.with_context(|| {
        format!(
            "no cloud runs on {} (cannot reach {}); start one with `maru up --data {0}`",
            data.display(),
            path.display()
        )
    })?;
    stream
        .write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes())
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let mut reply: Value = serde_json::from_str(&text).context("the cloud ended before it answered")?;
    if let Some(e) = reply.get("error").and_then(Value::as_str) {
        bail!("{e}");
    }
    Ok(reply.get_mut("ok").map(Value::take).unwrap_or_default())
}

/// `maru status`: what to print.
///
/// # Errors
/// When no cloud runs.
pub async fn status(options: Status) -> Result<String> {
    let status = ask(&options.data.data, &Ask::Status).await?;
    Ok(show::status(status, options.all))
}

/// `maru backup`: what to print.
///
/// # Errors
/// When no cloud runs or the file cannot be written.
pub async fn backup(options: Backup) -> Result<String> {
    let file = std::path::absolute(&options.file)?;
    let done = ask(&options.data.data, &Ask::Backup { file }).await?;
    Ok(show::nested(&done))
}

/// `maru adopt` and `maru discard`: what to print.
///
/// # Errors
/// When no cloud runs, there is no such thing, or it cannot come back.
pub async fn adopt(options: Unknown, adopt: bool) -> Result<String> {
    let done = ask(
        &options.data.data,
        &Ask::Unknown {
            what: options.what,
            id: options.id,
            node: options.node,
            adopt,
        },
    )
    .await?;
    Ok(show::nested(&done))
}

/// `maru debug`: what to print.
///
/// # Errors
/// When no cloud runs, or the mirror differs from the engine.
pub async fn debug(options: Debug) -> Result<String> {
    let (data, question) = match options.what {
        DebugWhat::Store { data, prefix } => (data, Ask::Dump { prefix }),
        DebugWhat::Story { data, server } => (data, Ask::Story { server }),
        DebugWhat::Check { data } => return Ok(show::nested(&ask(&data.data, &Ask::Check).await?)),
    };
    let list = ask(&data.data, &question).await?;
    Ok(list
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| format!("{item}\n"))
        .collect())
}

/// `maru token`: what to print.
///
/// # Errors
/// When no cloud runs, or no machine could reach it.
pub async fn token(options: Token) -> Result<String> {
    let Token { data, node, hours } = options;
    let ask_for = Ask::Token {
        node: node.clone(),
        hours,
    };
    let made = ask(&data.data, &ask_for).await?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    let node = node.map(|node| format!(" --node {node}")).unwrap_or_default();
    let control = text("control");
    // The usual port needs no saying.
    let address = control
        .strip_suffix(":5001")
        .filter(|a| !a.contains(':'))
        .unwrap_or(&control);
    Ok(format!(
        "{}\n\nIt lets one machine in, within {hours} h. Run there, as root:\n\n  maru join {0} {address}{node}\n",
        text("token")
    ))
}
