//! Microversions: one header, a range, `latest`.

use std::fmt;

/// A microversion such as 2.104.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Microversion {
    /// Before the dot.
    pub major: u16,
    /// After the dot.
    pub minor: u16,
}

impl Microversion {
    /// `Microversion::new(2, 1)` is 2.1.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
    /// Parses `2.53`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let digits = |s: &str| !s.is_empty() && s.len() <= 4 && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(major) || !digits(minor) || (minor.len() > 1 && minor.starts_with('0')) || major.starts_with('0') {
            return None;
        }
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Microversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What the version header is called, besides the common `OpenStack-API-Version: <service> <version>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroversionHeader {
    /// The service's name in `OpenStack-API-Version`: `compute`.
    pub service: &'static str,
    /// The older header, if there is one: `X-OpenStack-Nova-API-Version`.
    pub legacy: Option<&'static str>,
}

/// A service's range of microversions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Microversions {
    /// Its headers.
    pub header: MicroversionHeader,
    /// The lowest; also what a request without a header gets.
    pub min: Microversion,
    /// The highest; what `latest` gets.
    pub max: Microversion,
    /// A path under which the routes of another are served at the lowest microversion, whatever the headers say:
    /// `("/v2", "/v2.1")`.
    pub frozen: Option<(&'static str, &'static str)>,
}
