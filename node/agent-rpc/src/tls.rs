//! Who is who: certificates of the cluster's own CA.
//!
//! A node's certificate names it in its subject: organisation [`NODES`], common name the node. The control plane's one bears
//! [`crate::CONTROL_NAME`]. A machine that joins has neither: it knows the CA by its hash, which the token told it.

use maru_agent_api::NodeName;
use maru_base::{Error, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The organisation of nodes' certificates.
pub const NODES: &str = "maru:nodes";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &str, e: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::internal(format!("{what} cannot be used for TLS."), e)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| unusable("The certificate", e))
}

fn roots(ca: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|e| unusable("The CA's certificate", e))?;
    }
    Ok(Arc::new(roots))
}

fn private(key: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| unusable("The private key", e))
}

/// The control plane's end: shows its certificate and the CA's, takes nodes with a certificate of the CA, and machines without one
/// (which may only join).
///
/// # Errors
/// When certificate and key do not belong together.
pub fn server(ca: &str, certificate: &str, key: &str) -> Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| unusable("The CA's certificate", e))?;
    let mut chain = certificates(certificate)?;
    // A machine that joins looks for it by its hash.
    chain.extend(certificates(ca)?);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS 1.3", e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private(key)?)
        .map_err(|e| unusable("The control plane's certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A node's end.
///
/// # Errors
/// When certificate and key do not belong together.
pub fn node(ca: &str, certificate: &str, key: &str) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS 1.3", e))?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(certificates(certificate)?, private(key)?)
        .map_err(|e| unusable("The node's certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The end of a machine that joins: it trusts the CA whose certificate has this hash, and no other.
///
/// # Errors
/// When TLS 1.3 is not there.
pub fn joining(ca_hash: &str) -> Result<Arc<ClientConfig>> {
    let verifier = Arc::new(Pinned {
        hash: ca_hash.to_ascii_lowercase(),
        provider: provider(),
    });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS 1.3", e))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// SHA-256 of a CA's certificate (of its DER form), in hexadecimal digits: what a token carries.
///
/// # Errors
/// When it is none.
pub fn hash(ca: &str) -> Result<String> {
    let certificates = certificates(ca)?;
    let first = certificates
        .first()
        .ok_or_else(|| Error::bad_request("There is no certificate in the CA's file."))?;
    Ok(fingerprint(first))
}

fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|b| format!("{b:02x}")).collect()
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The node.
    pub node: NodeName,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), in hexadecimal digits.
    pub key: String,
}

/// The node that a certificate of the CA names; `None` for one of somebody else.
#[must_use]
pub fn holder(certificate: &[u8]) -> Option<Holder> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let organisation = subject.iter_organization().next()?.as_str().ok()?;
    let node = subject.iter_common_name().next()?.as_str().ok()?;
    (organisation == NODES).then(|| Holder {
        node: NodeName::from(node),
        key: fingerprint(parsed.public_key().raw),
    })
}

/// What a node's certificate (PEM) says of it.
///
/// # Errors
/// When it is no node's.
pub fn holder_of(certificate: &str) -> Result<Holder> {
    certificates(certificate)?
        .first()
        .and_then(|first| holder(first))
        .ok_or_else(|| Error::bad_request("This is no node's certificate."))
}

/// When a certificate (PEM) was made and when it ends, seconds since the epoch.
///
/// # Errors
/// When it is none.
pub fn validity(certificate: &str) -> Result<(i64, i64)> {
    let all = certificates(certificate)?;
    let bad = || Error::bad_request("There is no certificate in the node's file.");
    let first = all.first().ok_or_else(bad)?;
    let (_, parsed) = X509Certificate::from_der(first).map_err(|_| bad())?;
    let validity = parsed.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// Trusts the CA of one hash.
#[derive(Debug)]
struct Pinned {
    hash: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|c| fingerprint(c) == self.hash)
            .ok_or_else(|| {
                rustls::Error::General("the other end is not of the cloud that the token is of".to_owned())
            })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp, now)
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
