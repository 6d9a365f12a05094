//! Which part of an image's bytes a request asks for.

use maru_base::{Error, ErrorKind, Result};
use maru_http::Request;

/// First byte and length of the part that is asked for; none is all. `Range` comes first; `Content-Range` in a request
/// is not HTTP, but clients from Glance's early days send it and Glance answers it.
pub(crate) fn requested(request: &Request, total: u64) -> Result<Option<(u64, u64)>> {
    if let Some(text) = request.header("range") {
        return range(text, total).map(Some);
    }
    match request.header("content-range") {
        Some(text) => content_range(text, total).map(Some),
        None => Ok(None),
    }
}

fn refusal(text: &str, total: u64) -> Error {
    Error::new(
        ErrorKind::RangeNotSatisfiable,
        format!("The range '{text}' does not lie within the image's {total} bytes; ask for bytes=FIRST-LAST."),
    )
}

/// One byte range of RFC 9110, section 14.
fn range(text: &str, total: u64) -> Result<(u64, u64)> {
    if text.contains(',') {
        return Err(Error::invalid(
            "Range",
            "Requests for several ranges are not served; ask for one range at a time.",
        ));
    }
    let refuse = || refusal(text, total);
    let (unit, spec) = text.split_once('=').ok_or_else(refuse)?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Err(refuse());
    }
    let (first, last) = spec.split_once('-').ok_or_else(refuse)?;
    let number = |s: &str| s.trim().parse::<u64>().map_err(|_| refuse());
    let end = total.saturating_sub(1);
    let (first, last) = match (first.trim(), last.trim()) {
        ("", suffix) => (total.saturating_sub(number(suffix)?), end),
        (first, "") => (number(first)?, end),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(refuse());
            }
            (first, last.min(end))
        }
    };
    if first > last || first >= total {
        Err(refuse())
    } else {
        Ok((first, last - first + 1))
    }
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(text: &str, total: u64) -> Result<(u64, u64)> {
    let refuse = || refusal(text, total);
    let spec = text.strip_prefix("bytes ").ok_or_else(refuse)?;
    let (part, length) = spec.split_once('/').ok_or_else(refuse)?;
    let (first, last) = part.split_once('-').ok_or_else(refuse)?;
    let number = |s: &str| s.trim().parse::<u64>().map_err(|_| refuse());
    let (first, last) = (number(first)?, number(last)?);
    let stated = match length.trim() {
        "*" => total,
        n => number(n)?,
    };
    if first > last || last >= total || last >= stated {
        Err(refuse())
    } else {
        Ok((first, last - first + 1))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ranges_of_rfc_9110() {
        assert_eq!(range("bytes=0-9", 100).ok(), Some((0, 10)));
        assert_eq!(range("bytes=90-", 100).ok(), Some((90, 10)));
        assert_eq!(range("bytes=-5", 100).ok(), Some((95, 5)));
        assert_eq!(range("bytes=-500", 100).ok(), Some((0, 100)));
        assert_eq!(range("bytes=50-500", 100).ok(), Some((50, 50)));
        for bad in [
            "bytes=100-",
            "bytes=9-3",
            "bytes=200-9",
            "lines=1-2",
            "bytes=a-b",
            "bytes=-0",
            "bytes",
            "bytes=5",
            "bytes=-",
            "bytes=0-18446744073709551616",
        ] {
            assert_eq!(
                range(bad, 100).unwrap_err().kind(),
                ErrorKind::RangeNotSatisfiable,
                "{bad}"
            );
        }
        assert_eq!(range("bytes=0-1,3-4", 100).unwrap_err().kind(), ErrorKind::BadRequest);
        assert!(range("bytes=0-", 0).is_err());
    }

    #[test]
    fn content_ranges_of_old_clients() {
        assert_eq!(content_range("bytes 1-4/*", 100).ok(), Some((1, 4)));
        assert_eq!(content_range("bytes 0-99/100", 100).ok(), Some((0, 100)));
        for bad in [
            "bytes 4-1/*",
            "bytes 0-100/*",
            "bytes 0-9/5",
            "bytes */100",
            "0-9/100",
            "bytes 100-100/*",
        ] {
            assert!(content_range(bad, 100).is_err(), "{bad}");
        }
    }
}
