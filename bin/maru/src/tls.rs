//! TLS: a given certificate, or one from Maru's own CA that is made at the first start.

use anyhow::{Context, Result, bail};
use maru::ca::{Authority, write_secret, write_whole};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fs, net::IpAddr, path::Path, sync::Arc};

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
    let authority = Authority::of(data)?;
    let (cert, key) = (dir.join("api.pem"), dir.join("api.key"));
    // Whom the certificate names. Another address or host name needs another certificate.
    let names = format!("{host} {address}\n");
    let names_file = dir.join("api.names");
    if !cert.exists() || fs::read_to_string(&names_file).ok().as_deref() != Some(names.as_str()) {
        fs::remove_file(&names_file).ok();
        let issuer = authority.issuer()?;
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
