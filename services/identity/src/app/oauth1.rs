//! OAuth 1.0a signatures (RFC 5849): who signed a request, and that it was not sent before.
//!
//! The text that is signed is `METHOD&address&parameters`, each part percent-encoded, the parameters of the header and the
//! query sorted; the key is both secrets joined by `&`.

use hmac::{Hmac, Mac};
use maru_base::{Error, Result};
use maru_identity_model::{ConsumerId, Secret};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

/// How far a request's time may lie from ours, in seconds.
const WINDOW: i64 = 600;
/// Signed requests that are remembered; beyond that new ones wait until old ones are out of the window.
const REMEMBERED: usize = 100_000;
/// Longest header looked at, in bytes.
const MAX_HEADER: usize = 8 << 10;

/// A request that says that it is signed.
pub(crate) struct Signed {
    /// `POST`.
    pub(crate) method: String,
    /// Address without the query.
    pub(crate) url: String,
    /// The query's parameters.
    pub(crate) query: Vec<(String, String)>,
    /// The header's parameters.
    header: BTreeMap<String, String>,
}

/// The one text for whatever is wrong with a signature.
pub(crate) fn unsigned() -> Error {
    Error::unauthorized(
        "The request is not signed rightly: the consumer, the token, the time, the nonce or the signature is wrong.",
    )
}

fn encode(text: &str) -> String {
    // Everything but what RFC 3986 calls unreserved.
    const KEEP: percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(text, &KEEP).to_string()
}

fn decode(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .ok()
        .map(std::borrow::Cow::into_owned)
}

/// Reads `OAuth a="b", c="d"`; a name that is there twice is an error.
fn parse(header: &str) -> Option<BTreeMap<String, String>> {
    let (scheme, rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("oauth") || header.len() > MAX_HEADER {
        return None;
    }
    let mut out = BTreeMap::new();
    for part in rest.split(',') {
        let (name, value) = part.trim().split_once('=')?;
        let value = value.trim().strip_prefix('"')?.strip_suffix('"')?;
        let (name, value) = (decode(name.trim())?, decode(value)?);
        if name.eq_ignore_ascii_case("realm") {
            continue;
        }
        if out.insert(name, value).is_some() {
            return None;
        }
    }
    Some(out)
}

impl Signed {
    /// From a request.
    ///
    /// # Errors
    /// 400 without a header that can be read, naming what is missing.
    pub(crate) fn of(request: &maru_http::Request) -> Result<Self> {
        let header = request
            .header("authorization")
            .and_then(parse)
            .ok_or_else(|| Error::invalid("Authorization", "Expecting to find the header Authorization: OAuth ..."))?;
        Ok(Self {
            method: request.method.as_str().to_owned(),
            url: format!("{}{}", request.base, request.path),
            query: request
                .query
                .pairs()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            header,
        })
    }
    /// A parameter of the header.
    ///
    /// # Errors
    /// 400 naming it when it is not there.
    pub(crate) fn get(&self, name: &str) -> Result<&str> {
        self.header
            .get(name)
            .map(String::as_str)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| Error::invalid(name, format!("Expecting to find {name} in the header Authorization.")))
    }
    /// The consumer that it says it is of.
    ///
    /// # Errors
    /// 400 when it does not say.
    pub(crate) fn consumer(&self) -> Result<ConsumerId> {
        Ok(ConsumerId::from(self.get("oauth_consumer_key")?))
    }

    fn base_string(&self) -> String {
        let mut pairs: Vec<(String, String)> = self
            .header
            .iter()
            .filter(|(name, _)| *name != "oauth_signature")
            .map(|(k, v)| (encode(k), encode(v)))
            .chain(self.query.iter().map(|(k, v)| (encode(k), encode(v))))
            .collect();
        pairs.sort();
        let parameters: Vec<String> = pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!(
            "{}&{}&{}",
            self.method.to_uppercase(),
            encode(&self.url),
            encode(&parameters.join("&"))
        )
    }

    /// Whether the signature is by these secrets.
    fn signed_by(&self, consumer: &Secret, token: Option<&Secret>) -> bool {
        use base64::Engine;
        let key = format!(
            "{}&{}",
            encode(consumer.reveal()),
            encode(token.map_or("", |t| t.reveal()))
        );
        let Some(given) = self
            .header
            .get("oauth_signature")
            .and_then(|s| base64::engine::general_purpose::STANDARD.decode(s).ok())
        else {
            return false;
        };
        let text = self.base_string();
        // Compared in constant time.
        match self.header.get("oauth_signature_method").map(String::as_str) {
            Some("HMAC-SHA1") => Hmac::<sha1::Sha1>::new_from_slice(key.as_bytes())
                .is_ok_and(|m| m.chain_update(text).verify_slice(&given).is_ok()),
            Some("HMAC-SHA256") => Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes())
                .is_ok_and(|m| m.chain_update(text).verify_slice(&given).is_ok()),
            _ => false,
        }
    }
}

/// The header `Authorization` of a request without a query, signed by HMAC-SHA1: for tests. `consumer` and `token` are keys
/// with their secrets.
#[must_use]
pub fn sign_for_tests(
    method: &str,
    url: &str,
    consumer: (&str, &str),
    token: Option<(&str, &str)>,
    verifier: Option<&str>,
) -> String {
    use base64::Engine;
    let mut header = BTreeMap::from([
        ("oauth_consumer_key", consumer.0.to_owned()),
        ("oauth_signature_method", "HMAC-SHA1".to_owned()),
        ("oauth_version", "1.0".to_owned()),
        ("oauth_nonce", maru_base::random::hex32()),
        ("oauth_timestamp", maru_base::time::now().as_second().to_string()),
    ]);
    if let Some((key, _)) = token {
        header.insert("oauth_token", key.to_owned());
    }
    if let Some(verifier) = verifier {
        header.insert("oauth_verifier", verifier.to_owned());
    }
    let mut signed = Signed {
        method: method.to_owned(),
        url: url.to_owned(),
        query: Vec::new(),
        header: header.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
    };
    let key = format!("{}&{}", encode(consumer.1), encode(token.map_or("", |t| t.1)));
    let signature = Hmac::<sha1::Sha1>::new_from_slice(key.as_bytes())
        .map(|m| m.chain_update(signed.base_string()).finalize().into_bytes().to_vec())
        .unwrap_or_default();
    signed.header.insert(
        "oauth_signature".to_owned(),
        base64::engine::general_purpose::STANDARD.encode(signature),
    );
    let parts: Vec<String> = signed
        .header
        .iter()
        .map(|(k, v)| format!("{}=\"{}\"", encode(k), encode(v)))
        .collect();
    format!("OAuth {}", parts.join(", "))
}

/// The signed requests of the last minutes, so that none is good twice (attack class C2).
#[derive(Default)]
pub(crate) struct Nonces(Mutex<HashMap<(String, String, i64), ()>>);

impl Nonces {
    /// Checks a signature by these secrets. `None` for a consumer that is not there, which takes the same work.
    ///
    /// # Errors
    /// 401 when it is wrong, too old or was seen before.
    pub(crate) fn check(&self, signed: &Signed, consumer: Option<&Secret>, token: Option<&Secret>) -> Result<()> {
        let nobody = Secret::new("nobody");
        let by = consumer.unwrap_or(&nobody);
        if !signed.signed_by(by, token) || consumer.is_none() {
            return Err(unsigned());
        }
        if signed.header.get("oauth_version").is_some_and(|v| v != "1.0") {
            return Err(unsigned());
        }
        let now = maru_base::time::now().as_second();
        let time: i64 = signed.get("oauth_timestamp")?.parse().map_err(|_| unsigned())?;
        if (now - time).abs() > WINDOW {
            return Err(unsigned());
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= REMEMBERED {
            seen.retain(|(_, _, t), ()| (now - t).abs() <= WINDOW);
            if seen.len() >= REMEMBERED {
                return Err(Error::unavailable("Too many signed requests at once; try again later."));
            }
        }
        let key = (
            signed.consumer()?.to_string(),
            signed.get("oauth_nonce")?.chars().take(256).collect(),
            time,
        );
        match seen.insert(key, ()) {
            None => Ok(()),
            Some(()) => Err(unsigned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The example of RFC 5849, section 1.2 (its request for the photograph).
    #[test]
    fn the_example_of_the_specification() {
        let header = "OAuth realm=\"Photos\", oauth_consumer_key=\"dpf43f3p2l4k3l03\", \
            oauth_token=\"nnch734d00sl2jdk\", oauth_signature_method=\"HMAC-SHA1\", \
            oauth_timestamp=\"137131202\", oauth_nonce=\"chapoH\", \
            oauth_signature=\"MdpQcU8iPSUjWoN%2FUDMsK2sui9I%3D\"";
        let mut signed = Signed {
            method: "GET".to_owned(),
            url: "http://photos.example.net/photos".to_owned(),
            query: vec![
                ("file".to_owned(), "vacation.jpg".to_owned()),
                ("size".to_owned(), "original".to_owned()),
            ],
            header: parse(header).unwrap(),
        };
        let (consumer, token) = (Secret::new("kd94hf93k423kf44"), Secret::new("pfkkdhi9sl3r4s00"));
        assert!(signed.signed_by(&consumer, Some(&token)));
        assert!(!signed.signed_by(&consumer, None));
        assert!(!signed.signed_by(&token, Some(&consumer)));
        signed.query[1].1 = "huge".to_owned();
        assert!(!signed.signed_by(&consumer, Some(&token)));
        // Another method is another signature, and the weaker ones are not taken.
        for method in ["PLAINTEXT", "HMAC-SHA256", "none"] {
            signed
                .header
                .insert("oauth_signature_method".to_owned(), method.to_owned());
            assert!(!signed.signed_by(&consumer, Some(&token)));
        }
    }

    #[test]
    fn a_header_is_read_whole_or_not_at_all() {
        assert!(parse("OAuth a=\"b\", a=\"c\"").is_none());
        assert!(parse("Basic abc").is_none() && parse("OAuth").is_none() && parse("OAuth a=b").is_none());
        assert_eq!(parse("oauth a%20b=\"%C3%BC\"").unwrap()["a b"], "ü");
    }

    #[test]
    fn the_text_that_is_signed_sorts_what_is_encoded() {
        // The parameters of RFC 5849, section 3.4.1.3.2, those of its body left out.
        let signed = Signed {
            method: "POST".to_owned(),
            url: "http://example.com/request".to_owned(),
            query: [("b5", "=%3D"), ("a3", "a"), ("c@", ""), ("a2", "r b")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .to_vec(),
            header: BTreeMap::new(),
        };
        assert_eq!(
            signed.base_string(),
            "POST&http%3A%2F%2Fexample.com%2Frequest&a2%3Dr%2520b%26a3%3Da%26b5%3D%253D%25253D%26c%2540%3D"
        );
    }
}
