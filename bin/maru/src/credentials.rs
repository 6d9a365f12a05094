//! What clients log in with: `openrc` and `clouds.yaml`.

use crate::options::Data;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How to reach the cloud as its administrator; `<data>/admin.json`, readable by root alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Admin {
    /// `http://127.0.0.1:5000/identity/v3`.
    pub auth_url: String,
    /// The administrator's password.
    pub password: String,
    /// Region.
    pub region: String,
    /// CA certificate that clients need, if Maru's own CA signed the listener's.
    pub ca: Option<String>,
}

impl Admin {
    /// Reads it from a data directory.
    ///
    /// # Errors
    /// When `maru up` never ran there, or the reader is not root.
    pub fn load(data: &Path) -> Result<Self> {
        let path = data.join("admin.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "cannot read {}: run `maru up --data {}` first, and run this as root",
                path.display(),
                data.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }
    /// Writes it to a data directory.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, data: &Path) -> Result<()> {
        let path = data.join("admin.json");
        let fresh = data.join("admin.json.new");
        maru::ca::write_secret(&fresh, &serde_json::to_string_pretty(self)?)?;
        std::fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The shell lines.
///
/// # Errors
/// When there is no cloud in the data directory.
pub fn openrc(options: &Data) -> Result<String> {
    let admin = Admin::load(&options.data)?;
    let mut lines = vec![
        ("OS_AUTH_URL", admin.auth_url.as_str()),
        ("OS_USERNAME", "admin"),
        ("OS_PASSWORD", admin.password.as_str()),
        ("OS_PROJECT_NAME", "admin"),
        ("OS_USER_DOMAIN_NAME", "Default"),
        ("OS_PROJECT_DOMAIN_NAME", "Default"),
        ("OS_REGION_NAME", admin.region.as_str()),
        ("OS_IDENTITY_API_VERSION", "3"),
    ];
    if let Some(ca) = &admin.ca {
        lines.push(("OS_CACERT", ca));
    }
    let line = |(name, value): (&str, &str)| format!("export {name}='{}'\n", value.replace('\'', r"'\''"));
    Ok(lines.into_iter().map(line).collect())
}

/// The YAML.
///
/// # Errors
/// When there is no cloud in the data directory.
pub fn clouds_yaml(options: &Data) -> Result<String> {
    let admin = Admin::load(&options.data)?;
    // JSON strings are YAML strings, quoted safely.
    let quote = |s: &str| serde_json::Value::from(s).to_string();
    let mut text = format!(
        "clouds:\n  maru:\n    auth:\n      auth_url: {}\n      username: admin\n      password: {}\n      project_name: admin\n      \
         user_domain_name: Default\n      project_domain_name: Default\n    region_name: {}\n    identity_api_version: 3\n",
        quote(&admin.auth_url),
        quote(&admin.password),
        quote(&admin.region)
    );
    if let Some(ca) = &admin.ca {
        text.push_str(&format!("    cacert: {}\n", quote(ca)));
    }
    Ok(text)
}
