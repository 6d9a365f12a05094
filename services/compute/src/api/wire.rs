//! What the wire types of this API share: names, links, version gates.

use maru_base::{Error, Result};
use maru_http::Request;
pub(crate) use maru_http::forms::{Count, Flag, Word, body, given, invalid, is_uuid, present, typed};
use serde::Serialize;

/// Checks a name: 1 to 255 printable characters without white space at its ends.
pub(crate) fn check_name(field: &str, name: &str) -> Result<()> {
    let length = name.chars().count();
    if length == 0 || length > 255 {
        return Err(invalid(
            field,
            format!("A name has 1 to 255 characters, this one {length}."),
        ));
    }
    if name.trim() != name {
        return Err(invalid(field, "A name neither begins nor ends with white space."));
    }
    let hidden =
        |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}');
    if name.chars().any(hidden) {
        return Err(invalid(field, "A name has printable characters only."));
    }
    Ok(())
}

/// Checks a free text: up to 255 characters, no control characters but line ends and tabs.
pub(crate) fn check_text(field: &str, text: &str) -> Result<()> {
    if text.chars().count() > 255 {
        return Err(invalid(field, "At most 255 characters."));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(invalid(field, "Printable characters only."));
    }
    Ok(())
}

/// A link.
#[derive(Debug, Serialize)]
pub(crate) struct Link {
    pub rel: &'static str,
    pub href: String,
}

/// `self` and `bookmark` links of an object.
pub(crate) fn links(base: &str, collection: &str, id: &str) -> [Link; 2] {
    [
        Link {
            rel: "self",
            href: format!("{base}/v2.1/{collection}/{id}"),
        },
        Link {
            rel: "bookmark",
            href: format!("{base}/{collection}/{id}"),
        },
    ]
}

/// The `bookmark` link alone.
pub(crate) fn bookmark(base: &str, collection: &str, id: &str) -> [Link; 1] {
    [Link {
        rel: "bookmark",
        href: format!("{base}/{collection}/{id}"),
    }]
}

/// Serves a request from microversion 2.`minor` on; before it, there is no such path.
pub(crate) fn since(request: &Request, minor: u16) -> Result<()> {
    if request.at_least(2, minor) {
        Ok(())
    } else {
        Err(gone())
    }
}

/// Serves a request up to microversion 2.`minor`; after it, there is no such path.
pub(crate) fn until(request: &Request, minor: u16) -> Result<()> {
    if request.at_least(2, minor + 1) {
        Err(gone())
    } else {
        Ok(())
    }
}

fn gone() -> Error {
    Error::not_found("The resource could not be found: not in this microversion.")
}
