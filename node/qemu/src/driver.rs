//! The QEMU driver behind [`crate::Hypervisor`].

use crate::config::Options;
use maru_base::Result;

/// The QEMU driver.
pub struct Qemu {
    #[expect(dead_code, reason = "read by the driver's methods")]
    options: Options,
}

impl Qemu {
    /// A driver with these options; makes its directories.
    ///
    /// # Errors
    /// `Internal` when the directories cannot be made.
    pub fn new(options: Options) -> Result<Self> {
        Ok(Self { options })
    }
}
