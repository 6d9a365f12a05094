//! Where the parts meet: the services' seams, filled with the machine's parts.

use maru_auth::{Audit, AuditRecord};
use maru_base::{Error, ErrorKind, Result};
use maru_compute::Consoles;
use maru_compute_model::ConsoleType;
use maru_image::{Inspected, Inspector};
use maru_nodes::Hub;
use maru_store::record::Records;
use std::{path::Path, process::ExitCode, sync::Arc};

/// What the sandboxed child may be asked to parse.
const PARSERS: &[(&str, maru_sandbox::Parser)] = &[maru_block::SANDBOX_ENTRY];

/// The whole life of a sandboxed child.
pub fn sandbox_child() -> ExitCode {
    maru_sandbox::child_main(PARSERS)
}

/// Image inspection by the sandboxed parser.
pub struct SandboxInspector;

#[async_trait::async_trait]
impl Inspector for SandboxInspector {
    async fn inspect(&self, file: &Path, declared: &str) -> Result<Inspected> {
        let file =
            std::fs::File::open(file).map_err(|e| Error::internal("The uploaded bytes cannot be read back.", e))?;
        let proven = maru_block::prove(file, declared).await?;
        Ok(Inspected {
            proven_format: proven.format,
            virtual_size: Some(proven.virtual_size),
        })
    }
}

/// Audit records go to the stream `audit`, filed under the user.
pub struct RecordedAudit(pub Arc<dyn Records>);

#[async_trait::async_trait]
impl Audit for RecordedAudit {
    async fn record(&self, record: AuditRecord) {
        let subject = record.user_id.clone().unwrap_or_else(|| "-".to_owned());
        let outcome = match serde_json::to_value(&record) {
            Ok(value) => self.0.append("audit", &subject, value).await,
            Err(e) => Err(Error::new(ErrorKind::Internal, "the audit record cannot be encoded").with_source(e)),
        };
        if let Err(error) = outcome {
            tracing::error!(request_id = record.request_id, error = %error.chain(), "audit record lost");
        }
    }
}

/// What only a server's node can tell comes through its lanes.
pub struct LaneConsoles(pub Arc<Hub>, pub Arc<maru_image::App>);

#[async_trait::async_trait]
impl Consoles for LaneConsoles {
    async fn log(&self, host: &str, server: &str, lines: Option<usize>) -> Result<Vec<u8>> {
        self.0.lanes(host)?.console_log(server, lines).await
    }
    async fn upload_disk(&self, host: &str, server: &str, image: &str) -> Result<()> {
        let bytes = self.0.lanes(host)?.disk_image(server).await?;
        let bytes = Box::pin(tokio_util::io::ReaderStream::with_capacity(bytes, 1 << 20));
        self.1.fill(image, bytes).await
    }
    async fn diagnostics(&self, host: &str, server: &str) -> Result<serde_json::Value> {
        self.0.lanes(host)?.diagnostics(server).await
    }
    async fn inject_nmi(&self, host: &str, server: &str) -> Result<()> {
        self.0.lanes(host)?.inject_nmi(server).await
    }
    async fn password(&self, host: &str, server: &str) -> Result<Option<Vec<u8>>> {
        self.0.lanes(host)?.password(server).await
    }
    async fn console(&self, host: &str, server: &str, kind: ConsoleType) -> Result<Box<dyn maru_compute::Duplex>> {
        let lanes = self.0.lanes(host)?;
        let stream = match kind {
            ConsoleType::Novnc => lanes.vnc(server).await?,
            ConsoleType::Serial => lanes.serial(server).await?,
        };
        Ok(Box::new(stream))
    }
    async fn cache_image(&self, host: &str, digest: &str, format: &str) -> Result<()> {
        self.0.cache_image(host, digest, format).await
    }
    async fn clear_password(&self, host: &str, server: &str) -> Result<()> {
        self.0.lanes(host)?.clear_password(server).await
    }
}

/// A volume's bytes come from its node, through its lanes.
pub struct LaneVolumes(pub Arc<Hub>);

#[async_trait::async_trait]
impl maru_volume::VolumeBytes for LaneVolumes {
    async fn read(&self, host: &str, id: &str, format: &str) -> Result<maru_http::ByteStream> {
        let bytes = self.0.lanes(host)?.volume_bytes(id, format).await?;
        Ok(Box::pin(tokio_util::io::ReaderStream::with_capacity(bytes, 1 << 20)))
    }
}

/// An uploaded volume becomes an image.
pub struct UploadedVolumes(pub Arc<maru_image::App>);

#[async_trait::async_trait]
impl maru_volume::ImageSink for UploadedVolumes {
    async fn fill(&self, image_id: &str, bytes: maru_http::ByteStream) -> Result<()> {
        self.0.fill(image_id, bytes).await
    }
}
