//! One file of records: frames of length, checksum and payload, so that a torn tail is seen and dropped.

use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
};

/// Longer than any record: what claims more is damage.
const MOST: u32 = 16 << 20;
const HEAD: usize = 8;

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let mut c = n as u32;
        let mut bit = 0;
        while bit < 8 {
            c = if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 };
            bit += 1;
        }
        table[n] = c;
        n += 1;
    }
    table
}

const CRC: [u32; 256] = crc_table();

/// CRC-32 as in Ethernet and zip.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |c, b| CRC[usize::from((c as u8) ^ b)] ^ (c >> 8))
}

/// A record as read.
#[derive(Debug)]
pub(super) struct Record {
    /// Milliseconds since the epoch.
    pub(super) time: i64,
    pub(super) subject: String,
    json: Vec<u8>,
}

impl Record {
    pub(super) fn value(&self) -> io::Result<Value> {
        serde_json::from_slice(&self.json).map_err(io::Error::other)
    }
}

/// The bytes of one record. The payload: time, length of the subject, subject, JSON.
pub(super) fn frame(time: i64, subject: &str, record: &Value) -> io::Result<Vec<u8>> {
    let mut out = vec![0; HEAD];
    out.extend_from_slice(&time.to_le_bytes());
    let length = u16::try_from(subject.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(subject.as_bytes());
    serde_json::to_writer(&mut out, record)?;
    let length = u32::try_from(out.len() - HEAD).ok().filter(|n| *n <= MOST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a record is at most 16 MiB"))?;
    let crc = crc32(&out[HEAD..]);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEAD].copy_from_slice(&crc.to_le_bytes());
    Ok(out)
}

fn parse(payload: &[u8]) -> Option<Record> {
    let (time, rest) = payload.split_at_checked(8)?;
    let (length, rest) = rest.split_at_checked(2)?;
    let (subject, json) = rest.split_at_checked(usize::from(u16::from_le_bytes(length.try_into().ok()?)))?;
    let subject = String::from_utf8(subject.to_vec()).ok()?;
    Some(Record {
        time: i64::from_le_bytes(time.try_into().ok()?),
        subject,
        json: json.to_vec(),
    })
}

fn read_frame(read: &mut impl FnMut(&mut [u8]) -> io::Result<()>) -> io::Result<Option<(Record, u64)>> {
    let torn = |e: io::Error| {
        if e.kind() == io::ErrorKind::UnexpectedEof {
            Ok(None)
        } else {
            Err(e)
        }
    };
    let mut head = [0; HEAD];
    if let Err(e) = read(&mut head) {
        return torn(e);
    }
    let [a, b, c, d, e, f, g, h] = head;
    let (length, crc) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if length > MOST {
        return Ok(None);
    }
    let mut payload = vec![0; length as usize];
    if let Err(e) = read(&mut payload) {
        return torn(e);
    }
    if crc32(&payload) != crc {
        return Ok(None);
    }
    Ok(parse(&payload).map(|record| (record, HEAD as u64 + u64::from(length))))
}

/// Calls `each` with the place of every whole record; answers where the first damaged byte is (the end, if none).
pub(super) fn scan(path: &Path, mut each: impl FnMut(u64, Record)) -> io::Result<u64> {
    let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut at = 0;
    while let Some((record, length)) = read_frame(&mut |out| file.read_exact(out))? {
        each(at, record);
        at += length;
    }
    Ok(at)
}

/// Reads the record at a place that [`scan`] or a write gave.
pub(super) fn read(file: &File, at: u64) -> io::Result<Record> {
    let mut at = at;
    let mut next = |out: &mut [u8]| {
        file.read_exact_at(out, at)?;
        at += out.len() as u64;
        Ok(())
    };
    let found = read_frame(&mut next)?;
    found
        .map(|(record, _)| record)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is damaged"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_the_known_one() {
        assert_eq!(super::crc32(b"123456789"), 0xCBF4_3926);
    }
}
