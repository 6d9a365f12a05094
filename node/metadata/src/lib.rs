//! The metadata service at 169.254.169.254 and the config drive.
