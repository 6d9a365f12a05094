//! Key pairs: reading public keys, making new pairs, transactions.

use crate::{
    App,
    api::{
        keypairs::CreateBody,
        wire::{check_name, invalid},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use maru_base::{Error, Result, UserId};
use maru_compute_model::{KeyKind, KeyPair, keypair_id, quota};
use maru_http::Request;
use maru_store::Txn;
use md5::{Digest, Md5};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};

pub(crate) fn missing(user: &str, name: &str) -> Error {
    Error::not_found(format!("Keypair {name} not found for user {user}"))
}

/// Imports or makes a key pair; the second part is the private key of a new one, shown once and never stored.
pub(crate) async fn create(
    app: &App,
    request: &Request,
    body: CreateBody,
    owner: &str,
) -> Result<(KeyPair, Option<String>)> {
    check_name("keypair.name", &body.name)?;
    let extra: &[u8] = if request.at_least(2, 92) { b"@._- " } else { b"_- " };
    if !body
        .name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
    {
        return Err(Error::bad_request(
            "Keypair data is invalid: Keypair name contains unsafe characters",
        ));
    }
    let kind = match body.kind.as_deref() {
        None | Some("ssh") => KeyKind::Ssh,
        Some("x509") => KeyKind::X509,
        Some(other) => {
            return Err(invalid(
                "keypair.type",
                format!("'{other}' is not one of ['ssh', 'x509']"),
            ));
        }
    };
    let (public_key, fingerprint, private) = match (&body.public_key, kind) {
        (Some(text), KeyKind::Ssh) => (text.clone(), fingerprint_of(text)?, None),
        (Some(text), KeyKind::X509) => (text.clone(), certificate_fingerprint(text)?, None),
        (None, _) if request.at_least(2, 92) => {
            return Err(invalid("keypair.public_key", "'public_key' is a required property"));
        }
        (None, KeyKind::Ssh) => {
            let (public, private) = generate()?;
            let print = fingerprint_of(&public)?;
            (public, print, Some(private))
        }
        (None, KeyKind::X509) => {
            let (certificate, private) = certificate(owner)?;
            let print = certificate_fingerprint(&certificate)?;
            (certificate, print, Some(private))
        }
    };
    let mut number = [0_u8; 4];
    maru_base::random::fill(&mut number);
    let key = KeyPair {
        user_id: UserId::from(owner),
        name: body.name.clone(),
        kind,
        public_key,
        fingerprint,
        number: u32::from_be_bytes(number) >> 1,
        created: maru_base::time::now(),
    };
    let id = keypair_id(owner, &body.name);
    // Key pairs are counted by user; the limit is that of the caller's project.
    let counter = format!("user:{owner}");
    let project = request
        .caller()?
        .project_id()
        .map(ToString::to_string)
        .unwrap_or_default();
    app.store
        .plan(|snapshot| {
            if snapshot.get::<KeyPair>(&id).is_some() {
                return Err(Error::conflict(format!("Key pair '{}' already exists.", body.name)));
            }
            let limit = quota::limit(snapshot, &project, "key_pairs");
            if limit >= 0 && quota::used(snapshot, &counter, "key_pairs") >= limit {
                return Err(too_many());
            }
            let mut txn = Txn::new();
            txn.create(&id, &key);
            txn.add(quota::used_key(&counter, "key_pairs"), 1, (limit >= 0).then_some(limit));
            Ok((txn, ()))
        })
        .await
        .map_err(|e| match maru_store::CommitError::conflict_of(&e) {
            Some(maru_store::Conflict::Exceeded { .. }) => too_many(),
            _ => e,
        })?;
    Ok((key, private))
}

fn too_many() -> Error {
    Error::forbidden("Quota exceeded, too many key pairs.")
}

/// Removes a key pair; servers keep their copy.
pub(crate) async fn delete(app: &App, user: &str, name: &str) -> Result<()> {
    app.store
        .plan(|snapshot| {
            let key = snapshot
                .get::<KeyPair>(&keypair_id(user, name))
                .ok_or_else(|| missing(user, name))?;
            let mut txn = Txn::new();
            txn.delete(&key);
            txn.add(quota::used_key(&format!("user:{user}"), "key_pairs"), -1, None);
            Ok((txn, ()))
        })
        .await
}

/// MD5 of an OpenSSH public key's blob, as `ssh-keygen -E md5 -l` shows it.
fn fingerprint_of(text: &str) -> Result<String> {
    let bad = |why: &str| Error::bad_request(format!("Keypair data is invalid: {why}"));
    if text.is_empty() || text.len() > 16_384 || text.trim_end().contains(['\n', '\r', '\0']) {
        return Err(bad("a public key is one line of at most 16 KiB."));
    }
    let mut words = text.split_whitespace();
    let (Some(kind), Some(data)) = (words.next(), words.next()) else {
        return Err(bad("it is not an OpenSSH public key ('ssh-ed25519 AAAA... comment')."));
    };
    let blob = STANDARD
        .decode(data)
        .map_err(|_| bad("failed to generate fingerprint: its second word is not base64."))?;
    // The blob begins with its own name: length, then the same word as in front (RFC 4253, section 6.6).
    let named = blob
        .get(..4)
        .and_then(|n| <[u8; 4]>::try_from(n).ok())
        .map(u32::from_be_bytes);
    let name = named.and_then(|n| blob.get(4..4_usize.saturating_add(usize::try_from(n).ok()?)));
    if name != Some(kind.as_bytes()) {
        return Err(bad(
            "failed to generate fingerprint: the key's type and its data do not agree.",
        ));
    }
    Ok(colons(&Md5::digest(&blob)))
}

/// The fingerprint of a PEM certificate: MD5 of its bytes.
fn certificate_fingerprint(text: &str) -> Result<String> {
    let bad = || Error::bad_request("Keypair data is invalid: it is not a PEM certificate.");
    let body = text
        .split("-----BEGIN CERTIFICATE-----")
        .nth(1)
        .and_then(|t| t.split("-----END CERTIFICATE-----").next())
        .ok_or_else(bad)?;
    let compact: String = body.chars().filter(|c| !c.is_whitespace()).collect();
    let bytes = STANDARD.decode(compact).map_err(|_| bad())?;
    Ok(colons(&Md5::digest(&bytes)))
}

/// Years that a generated certificate is good for, as upstream's are.
const CERTIFICATE_YEARS: i32 = 10;

/// A new self-signed certificate that a user logs in to Windows with (client authentication, the user's name as UPN), and its private
/// key, both in PEM. The key is ECDSA P-256, where upstream makes an RSA one.
fn certificate(user: &str) -> Result<(String, String)> {
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, OtherNameValue, SanType};
    /// Microsoft's user principal name.
    const UPN: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    let failed =
        |e: rcgen::Error| Error::internal("a certificate could not be generated; import one with public_key", e);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    let name = OtherNameValue::Utf8String(format!("{user}@localhost"));
    params.subject_alt_names.push(SanType::OtherName((UPN.to_vec(), name)));
    params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
    let year = maru_base::time::now().to_zoned(jiff::tz::TimeZone::UTC).year();
    params.not_before = rcgen::date_time_ymd(i32::from(year) - 1, 12, 31);
    params.not_after = rcgen::date_time_ymd(i32::from(year) + CERTIFICATE_YEARS, 12, 31);
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":")
}

/// A new ECDSA P-256 pair: OpenSSH public key, and private key in OpenSSH's own format (PROTOCOL.key), not encrypted.
fn generate() -> Result<(String, String)> {
    let failed = |_| {
        Error::new(
            maru_base::ErrorKind::Internal,
            "A key pair could not be generated; import one with public_key.",
        )
    };
    let rng = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).map_err(failed)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &rng)
        .map_err(|_| failed(ring::error::Unspecified))?;
    let point = pair.public_key().as_ref();
    // PKCS#8 of this curve (RFC 5915 inside RFC 5208): the private number is the 32-byte OCTET STRING.
    let scalar = pkcs8
        .as_ref()
        .windows(2)
        .position(|w| w == [0x04, 0x20])
        .and_then(|at| pkcs8.as_ref().get(at + 2..at + 34))
        .ok_or_else(|| failed(ring::error::Unspecified))?;
    let name: &[u8] = b"ecdsa-sha2-nistp256";
    let curve: &[u8] = b"nistp256";
    let public = [string(name), string(curve), string(point)].concat();
    let mut check = [0_u8; 4];
    maru_base::random::fill(&mut check);
    // An mpint whose first bit is set needs a zero byte in front (RFC 4251, section 5); leading zeros are left out.
    let trimmed: Vec<u8> = scalar.iter().copied().skip_while(|b| *b == 0).collect();
    let number = if trimmed.first().is_some_and(|b| *b >= 0x80) {
        [&[0][..], &trimmed].concat()
    } else {
        trimmed
    };
    let mut secret = [
        &check[..],
        &check[..],
        &string(name),
        &string(curve),
        &string(point),
        &string(&number),
        &string(b""),
    ]
    .concat();
    let mut pad = 1_u8;
    while !secret.len().is_multiple_of(8) {
        secret.push(pad);
        pad += 1;
    }
    let whole = [
        &b"openssh-key-v1\0"[..],
        &string(b"none"),
        &string(b"none"),
        &string(b""),
        &1_u32.to_be_bytes(),
        &string(&public),
        &string(&secret),
    ]
    .concat();
    let text = STANDARD.encode(whole);
    let mut pem = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(70) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    Ok((
        format!("ecdsa-sha2-nistp256 {} Generated-by-Maru", STANDARD.encode(public)),
        pem,
    ))
}

/// A string of the SSH protocol: length and bytes.
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    [&length.to_be_bytes()[..], bytes].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_generated_key_is_read_by_openssh() {
        let (public, private) = generate().unwrap();
        assert!(fingerprint_of(&public).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, private).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        // openssh-client is among what scripts/bootstrap installs for tests.
        let out = std::process::Command::new("ssh-keygen")
            .arg("-y")
            .arg("-f")
            .arg(&path)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(
            shown.split_whitespace().nth(1),
            public.split_whitespace().nth(1),
            "{out:?}"
        );
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in [
            "",
            "ssh-rsa",
            "ssh-rsa AAAA!",
            "ssh-rsa AAAAB3NzaC1kc3M=",
            "x y\nssh-rsa AAAA",
        ] {
            assert!(fingerprint_of(text).is_err(), "{text}");
        }
    }
}
