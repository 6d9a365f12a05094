//! Image headers: what an uploaded file is, and whether a claim about it is believed.
//!
//! An input describes a sparse file, so that a signature at the end of a large image is as near as one at its beginning:
//! `[length u32] ([offset u32] [bytes u16] bytes ...)*`, numbers little endian; what no piece covers is zeros.

use super::{Target, words};
use maru_block::{check_claim, inspect};
use std::io::{self, Read, Seek, SeekFrom};

/// A file of zeros with some pieces in it; counts what is read.
struct Sparse {
    length: u64,
    pieces: Vec<(u64, Vec<u8>)>,
    at: u64,
    read: u64,
}

impl Sparse {
    fn parse(input: &[u8]) -> Option<Self> {
        let (length, mut rest) = input.split_first_chunk::<4>()?;
        let mut pieces = Vec::new();
        while let Some((offset, tail)) = rest.split_first_chunk::<4>() {
            let Some((bytes, tail)) = tail.split_first_chunk::<2>() else {
                break;
            };
            let bytes = usize::from(u16::from_le_bytes(*bytes)).min(tail.len());
            pieces.push((u64::from(u32::from_le_bytes(*offset)), tail[..bytes].to_vec()));
            rest = &tail[bytes..];
        }
        Some(Self {
            length: u64::from(u32::from_le_bytes(*length)),
            pieces,
            at: 0,
            read: 0,
        })
    }
    fn write(length: u32, pieces: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = length.to_le_bytes().to_vec();
        for (offset, bytes) in pieces {
            out.extend(offset.to_le_bytes());
            out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend(*bytes);
        }
        out
    }
    /// The bytes at the beginning.
    fn head<const N: usize>(&mut self) -> [u8; N] {
        let mut head = [0; N];
        self.at = 0;
        if self.length >= N as u64 && self.read_exact(&mut head).is_err() {
            head = [0; N];
        }
        self.at = 0;
        head
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = usize::try_from(self.length.saturating_sub(self.at))
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        buffer[..n].fill(0);
        let (from, to) = (self.at, self.at + n as u64);
        for (offset, bytes) in &self.pieces {
            let (start, end) = (from.max(*offset), to.min(offset + bytes.len() as u64));
            if start < end {
                let into = usize::try_from(start - from).unwrap_or(0);
                let of = usize::try_from(start - offset).unwrap_or(0);
                let count = usize::try_from(end - start).unwrap_or(0);
                buffer[into..into + count].copy_from_slice(&bytes[of..of + count]);
            }
        }
        self.at = to;
        self.read += n as u64;
        Ok(n)
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.length.checked_add_signed(n),
            SeekFrom::Current(n) => self.at.checked_add_signed(n),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

fn be(words: &[(usize, u32)], magic: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    out[..magic.len()].copy_from_slice(magic);
    for (at, value) in words {
        out[*at..at + 4].copy_from_slice(&value.to_be_bytes());
    }
    out
}

fn seeds() -> Vec<Vec<u8>> {
    // Version 3, clusters of 64 KiB, 1 GiB, one L1 entry, header of 104 bytes.
    let qcow2 = be(
        &[
            (4, 3),
            (20, 16),
            (28, 1 << 30),
            (36, 2),
            (44, 0x30000),
            (52, 0x10000),
            (56, 1),
            (96, 4),
            (100, 104),
        ],
        b"QFI\xfb",
        512,
    );
    let backing = be(
        &[
            (4, 2),
            (12, 72),
            (16, 11),
            (20, 16),
            (28, 1 << 30),
            (36, 2),
            (44, 0x30000),
            (52, 0x10000),
            (56, 1),
        ],
        b"QFI\xfb",
        128,
    );
    let mut mbr = vec![0; 512];
    mbr[446] = 0x80;
    mbr[450] = 0x83;
    mbr[454..458].copy_from_slice(&2_048_u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&4_096_u32.to_le_bytes());
    mbr[510] = 0x55;
    mbr[511] = 0xaa;
    let mut vmdk = vec![0; 512];
    vmdk[..4].copy_from_slice(b"KDMV");
    vmdk[4..8].copy_from_slice(&1_u32.to_le_bytes());
    vmdk[8..12].copy_from_slice(&3_u32.to_le_bytes());
    vmdk[12..20].copy_from_slice(&2_048_u64.to_le_bytes());
    vmdk[20..28].copy_from_slice(&128_u64.to_le_bytes());
    vmdk[28..36].copy_from_slice(&1_u64.to_le_bytes());
    vmdk[36..44].copy_from_slice(&20_u64.to_le_bytes());
    vmdk[44..48].copy_from_slice(&512_u32.to_le_bytes());
    let descriptor = b"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 2048 SPARSE \"a.vmdk\"\n";
    let flat = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \"/etc/shadow\" 0\n";
    let mut vhd = b"conectix".to_vec();
    vhd.extend(be(
        &[(0, 2), (4, 0x10000), (32, 1 << 20), (40, 1 << 20), (52, 2)],
        b"",
        504,
    ));
    let mut vdi = b"<<< Oracle VM VirtualBox Disk Image >>>\n".to_vec();
    vdi.resize(64, 0);
    vdi.extend(0xbeda_107f_u32.to_le_bytes());
    vdi.extend(0x0001_0001_u32.to_le_bytes());
    vdi.resize(512, 0);
    vdi[72..76].copy_from_slice(&0x190_u32.to_le_bytes());
    vdi[76..80].copy_from_slice(&1_u32.to_le_bytes());
    let mut gpt = b"EFI PART".to_vec();
    gpt.extend(0x0001_0000_u32.to_le_bytes());
    gpt.extend(92_u32.to_le_bytes());
    gpt.resize(92, 0);
    let mib = 1 << 20;
    let one = |bytes: &[u8]| Sparse::write(mib, &[(0, bytes)]);
    vec![
        one(&qcow2),
        Sparse::write(mib, &[(0, &backing), (72, b"/etc/passwd")]),
        one(&mbr),
        Sparse::write(mib, &[(0, &mbr), (512, &gpt), (mib - 512, &gpt)]),
        Sparse::write(mib, &[(0, &vmdk), (512, descriptor)]),
        one(flat),
        Sparse::write(mib, &[(mib - 512, &vhd)]),
        one(&vdi),
        Sparse::write(
            8 * mib,
            &[
                (0, b"vhdxfile"),
                (64 << 10, b"head"),
                (192 << 10, b"regi\0\0\0\0\x02\0\0\0"),
                (256 << 10, b"regi"),
            ],
        ),
        Sparse::write(mib, &[(32_768, b"\x01CD001\x01"), (34_816, b"\xffCD001\x01")]),
        one(b"\x1f\x8b\x08\0\0\0\0\0"),
        one(b"LUKS\xba\xbe\0\x01"),
        one(b"PK\x03\x04"),
        one(b"koly"),
        one(b"WithoutFreeSpace"),
        one(b"QED\0"),
        one(b"Bochs Virtual HD Image\0"),
        Sparse::write(1, &[]),
    ]
}

/// What a tenant may declare.
const DECLARED: [&str; 10] = [
    "raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi", "iso", "ami", "ploop", "nonsense",
];
/// More of a file than this is never read (the promise is about 1.2 MiB).
const READ_MOST: u64 = 2 << 20;

pub fn target() -> Target {
    let run = |input: &[u8]| {
        let Some(mut file) = Sparse::parse(input) else {
            return false;
        };
        let head: [u8; 4] = file.head();
        let descriptor = file.head() == *b"# Disk DescriptorFile";
        file.read = 0;
        let found = inspect(&mut file);
        assert!(file.read <= READ_MOST, "{} bytes were read", file.read);
        let Ok(found) = found else { return false };
        for declared in DECLARED {
            let verdict = check_claim(declared, &found);
            if declared == "nonsense" {
                assert!(verdict.is_err(), "a format that does not exist was proven");
            }
            if let Ok(proven) = verdict {
                // A3: what begins as another format is never proven raw; A1, A2: what is unsafe is never proven.
                if descriptor || matches!(&head, b"QFI\xfb" | b"KDMV" | b"COWD") {
                    assert_ne!(proven.bootable_format(), Some("raw"), "{head:?} was proven raw");
                }
                assert!(found.is_safe(), "{declared}: an unsafe image was proven");
            }
        }
        true
    };
    Target {
        name: "image",
        seeds: seeds(),
        words: [
            words(&[
                "KDMV",
                "COWD",
                "conectix",
                "cxsparse",
                "vhdxfile",
                "regi",
                "head",
                "EFI PART",
                "CD001",
                "NSR02",
                "BEA01",
                "TEA01",
                "LUKS",
                "SKUL",
                "koly",
                "QED\0",
                "PK",
                "BZh",
                "# Disk DescriptorFile\n",
                "createType=\"",
                "RW 1 FLAT \"",
                "parentFileNameHint=\"",
                "parentCID=",
                "/etc/shadow",
                "WithouFreSpacExt",
                "ustar",
            ]),
            vec![
                b"QFI\xfb".to_vec(),
                b"\x1f\x8b\x08".to_vec(),
                b"\xfd7zXZ\0".to_vec(),
                b"(\xb5/\xfd".to_vec(),
                b"\x55\xaa".to_vec(),
                // Extensions of a qcow2 header: external data file, backing format, LUKS.
                b"\x44\x41\x54\x41\0\0\0\x04/a/b".to_vec(),
                b"\xe2\x79\x2a\xca\0\0\0\x05qcow2".to_vec(),
                b"\x05\x37\xbe\x77\0\0\0\x10".to_vec(),
            ],
        ]
        .concat(),
        most: 8_192,
        run: Box::new(run),
    }
}
