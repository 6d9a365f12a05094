//! The serial log: QEMU appends to `console.log`, we keep it bounded.
//!
//! QEMU writes the file by itself (a reader task of ours would lose what is printed while we are not there), opened for
//! appending. When it has grown past the limit its newest bytes move to `console.log.1` and it is cut to nothing; QEMU's
//! next write lands at the new end. What is printed between the copy and the cut is lost: a flood loses some of itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Cuts `console.log` and `qemu.log` in `home` when they have more than `limit` bytes.
///
/// # Errors
/// What the file system gives.
pub fn bound(home: &Path, limit: u64) -> io::Result<()> {
    for name in ["console.log", "qemu.log"] {
        let path = home.join(name);
        let mut log = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(log) => log,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let length = log.metadata()?.len();
        if length <= limit {
            continue;
        }
        let newest = tail(&mut log, limit)?;
        let (old, part) = (home.join(format!("{name}.1")), home.join(format!("{name}.1.part")));
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part)?
            .write_all(&newest)?;
        std::fs::rename(&part, &old)?;
        log.set_len(0)?;
    }
    Ok(())
}

/// The newest `limit` bytes of a file.
fn tail(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The newest `lines` lines of the log (all that is kept, if `None`), at most twice `limit` bytes.
///
/// # Errors
/// What the file system gives; a log that is not there yet is empty.
pub fn read(home: &Path, lines: Option<usize>, limit: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for name in ["console.log.1", "console.log"] {
        match File::open(home.join(name)) {
            Ok(mut file) => text.extend(tail(&mut file, limit)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    if let Some(lines) = lines {
        let start = newest_lines(&text, lines);
        text.drain(..start);
    }
    Ok(text)
}

/// Where the newest `lines` lines begin. A last line without its end counts as one.
fn newest_lines(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, b)| **b == b'\n')
        .map(|(at, _)| at + 1);
    ends.nth(lines - 1).unwrap_or(0)
}

/// The last line that QEMU itself said, for a message.
#[must_use]
pub fn last_words(home: &Path) -> Option<String> {
    let mut file = File::open(home.join("qemu.log")).ok()?;
    let bytes = tail(&mut file, 4096).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|l| !l.trim().is_empty())?;
    Some(line.chars().take(300).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_stays_bounded_and_the_newest_lines_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.path().join("console.log"))
            .unwrap();
        for round in 0..50 {
            for line in 0..100 {
                writeln!(writer, "round {round} line {line}").unwrap();
            }
            bound(dir.path(), 4096).unwrap();
            let size = |n: &str| std::fs::metadata(dir.path().join(n)).map_or(0, |m| m.len());
            assert!(size("console.log") <= 4096 && size("console.log.1") <= 4096);
        }
        writeln!(writer, "the end").unwrap();
        let two = read(dir.path(), Some(2), 4096).unwrap();
        assert_eq!(String::from_utf8(two).unwrap(), "round 49 line 99\nthe end\n");
        assert!(read(dir.path(), None, 4096).unwrap().len() > 100);
        assert_eq!(read(dir.path(), Some(0), 4096).unwrap(), b"");
    }

    #[test]
    fn lines_are_counted_from_the_end() {
        assert_eq!(newest_lines(b"a\nb\nc", 1), 4);
        assert_eq!(newest_lines(b"a\nb\nc\n", 2), 2);
        assert_eq!(newest_lines(b"a\n", 9), 0);
        assert_eq!(newest_lines(b"", 1), 0);
    }

    #[test]
    fn a_log_that_is_not_there_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        bound(dir.path(), 10).unwrap();
        assert_eq!(read(dir.path(), Some(5), 10).unwrap(), b"");
    }
}
