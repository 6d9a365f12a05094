//! TLS: a given certificate, or one from Maru's own CA that is made at the first start.

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fs, io::Write, net::IpAddr, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc};

/// The listener's TLS settings from PEM files.
///
/// # Errors
/// When a file cannot be read or certificate and key do not fit.
pub fn from_files(cert: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .with_context(|| format!("cannot read the certificate {}", cert.display()))?
        .collect::<std::result::Result<_, _>>()
        .with_context(|| format!("{} is not a PEM certificate chain", cert.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate", cert.display());
    }
    let key_der =
        PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read the private key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key_der)
        .context("the certificate and the key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The listener's TLS settings from Maru's own CA in `<data>/tls`, made if it is not there.
///
/// # Errors
/// When the files cannot be written or read.
pub fn own(data: &Path, address: IpAddr, host: &str) -> Result<Arc<rustls::ServerConfig>> {
    let dir = data.join("tls");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (ca_cert, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    // The certificate is written last and whole: a crash before that makes both anew.
    if !ca_cert.exists() {
        let key = KeyPair::generate()?;
        let cert = ca_params().self_signed(&key)?;
        write_secret(&ca_key, &key.serialize_pem())?;
        write_whole(&ca_cert, &cert.pem())?;
    }
    let (cert, key) = (dir.join("api.pem"), dir.join("api.key"));
    // Whom the certificate names. Another address or host name needs another certificate.
    let names = format!("{host} {address}\n");
    let names_file = dir.join("api.names");
    if !cert.exists() || fs::read_to_string(&names_file).ok().as_deref() != Some(names.as_str()) {
        fs::remove_file(&names_file).ok();
        let ca = KeyPair::from_pem(&fs::read_to_string(&ca_key)?).with_context(|| {
            format!(
                "{} is damaged; with {} removed, a new CA is made",
                ca_key.display(),
                ca_cert.display()
            )
        })?;
        let issuer = Issuer::new(ca_params(), ca);
        let own = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![host.to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, host);
        params
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        if !address.is_unspecified() {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
        let signed = params.signed_by(&own, &issuer)?;
        write_secret(&key, &own.serialize_pem())?;
        write_whole(&cert, &signed.pem())?;
        write_whole(&names_file, &names)?;
    }
    from_files(&cert, &key)
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
fn write_whole(path: &Path, text: &str) -> Result<()> {
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
