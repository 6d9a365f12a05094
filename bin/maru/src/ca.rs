//! Maru's own CA: what it signs, and where it is kept.
//!
//! A data directory has it in `tls/`, made at the first need. The cluster's one is in the store, so that every control node signs
//! with the same: the first control node's becomes it.

use anyhow::{Context, Result};
use maru_agent_rpc::{CONTROL_NAME, tls::NODES};
use maru_nodes::joining::ClusterCa;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

/// Days that a node's certificate is good; it is renewed after two thirds of them.
pub const NODE_DAYS: i64 = 90;

/// A CA with its key.
#[derive(Clone)]
pub struct Authority {
    /// Its certificate, PEM.
    pub certificate: String,
    key: String,
}

impl Authority {
    /// The CA of a data directory, made if there is none.
    ///
    /// # Errors
    /// When the files cannot be written or read.
    pub fn of(data: &Path) -> Result<Self> {
        let dir = data.join("tls");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (certificate, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        // The certificate is written last and whole: a crash before that makes both anew.
        if !certificate.exists() {
            let fresh = KeyPair::generate()?;
            let signed = ca_params().self_signed(&fresh)?;
            write_secret(&key, &fresh.serialize_pem())?;
            write_whole(&certificate, &signed.pem())?;
        }
        let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        Ok(Self {
            certificate: read(&certificate)?,
            key: read(&key)?,
        })
    }

    /// The cluster's CA, which becomes this data directory's as well.
    ///
    /// # Errors
    /// When the store or the files cannot be written.
    pub async fn settle(store: &maru_store::Store, data: &Path) -> Result<Self> {
        let own = Self::of(data)?;
        let cluster = maru_nodes::joining::settle_ca(
            store,
            ClusterCa {
                certificate: own.certificate.clone(),
                key: own.key.clone(),
            },
        )
        .await?;
        if cluster.certificate != own.certificate {
            let dir = data.join("tls");
            // What the other CA signed goes before the files change: a crash in between makes it anew.
            fs::remove_file(dir.join("api.names")).ok();
            write_secret(&dir.join("ca.key"), &cluster.key)?;
            write_whole(&dir.join("ca.pem"), &cluster.certificate)?;
        }
        Ok(Self {
            certificate: cluster.certificate,
            key: cluster.key,
        })
    }

    /// Who signs.
    ///
    /// # Errors
    /// When the key is damaged.
    pub fn issuer(&self) -> Result<Issuer<'static, KeyPair>> {
        let key = KeyPair::from_pem(&self.key)
            .context("the CA's key is damaged; with tls/ca.pem of the data directory removed, a new CA is made")?;
        Ok(Issuer::new(ca_params(), key))
    }

    /// A certificate for a node with the key of its request; whatever else the request asks for is not given.
    ///
    /// # Errors
    /// When the request is none, or is not signed by its key.
    pub fn sign_node(&self, node: &str, request: &str) -> Result<String> {
        let mut csr = CertificateSigningRequestParams::from_pem(request)
            .context("this is no certificate signing request that its own key has signed")?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, NODES);
        name.push(DnType::CommonName, node);
        params.distinguished_name = name;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let today = maru_base::time::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let day = |days: i64| -> Result<_> {
            let date = today.checked_add(jiff::Span::new().days(days))?;
            Ok(rcgen::date_time_ymd(
                i32::from(date.year()),
                u8::try_from(date.month())?,
                u8::try_from(date.day())?,
            ))
        };
        // A machine whose clock is a little behind takes it as well.
        params.not_before = day(-1)?;
        params.not_after = day(NODE_DAYS)?;
        csr.params = params;
        Ok(csr.signed_by(&self.issuer()?)?.pem())
    }

    /// Certificate and key of a control node, for agents to find.
    ///
    /// # Errors
    /// When the CA's key is damaged.
    pub fn control(&self) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![CONTROL_NAME.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, CONTROL_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        Ok((params.signed_by(&key, &self.issuer()?)?.pem(), key.serialize_pem()))
    }
}

/// A node's new key and its request, PEM.
///
/// # Errors
/// When no key can be made.
pub fn request(key: &str) -> Result<String> {
    let key = KeyPair::from_pem(key).context("the node's key is damaged")?;
    Ok(CertificateParams::default().serialize_request(&key)?.pem()?)
}

/// A new private key, PEM.
///
/// # Errors
/// When the machine has no randomness.
pub fn key() -> Result<String> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// What Maru's CA is; its key makes it this cloud's.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Maru CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Writes a file so that it is there whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    write_secret(&fresh, text)?;
    fs::rename(&fresh, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that only its owner may read.
///
/// # Errors
/// When it cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(())
}
