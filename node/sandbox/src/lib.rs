//! Runs parsers of tenant bytes in a locked-down child process.
