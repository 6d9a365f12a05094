//! How inputs are changed: deterministic for a seed.

/// A small generator (xorshift64*): the same seed gives the same inputs on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
    pub fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }
}

/// Numbers at which code tends to change its mind.
const EDGES: [u64; 18] = [
    0,
    1,
    2,
    7,
    8,
    16,
    32,
    64,
    127,
    128,
    255,
    256,
    4_096,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

/// Changes `input` a few times. `others` are inputs to take pieces from, `words` what the format's own words are.
pub fn mutate(input: &mut Vec<u8>, random: &mut Random, others: &[Vec<u8>], words: &[Vec<u8>], most: usize) {
    for _ in 0..1 + random.below(6) {
        once(input, random, others, words);
    }
    input.truncate(most);
}

fn once(input: &mut Vec<u8>, random: &mut Random, others: &[Vec<u8>], words: &[Vec<u8>]) {
    let at = random.below(input.len() + 1);
    let reach = if random.below(4) == 0 { 64 } else { 8 };
    let length = 1 + random.below(reach);
    let end = (at + length).min(input.len());
    match random.below(14) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.byte(),
        2 if at < input.len() => {
            let by = 1 + random.below(16) as u8;
            input[at] = if random.below(2) == 0 {
                input[at].wrapping_add(by)
            } else {
                input[at].wrapping_sub(by)
            };
        }
        3 | 4 => {
            let value = EDGES[random.below(EDGES.len())];
            let width = 1 << random.below(4);
            let bytes = if random.below(2) == 0 {
                value.to_be_bytes()[8 - width..].to_vec()
            } else {
                value.to_le_bytes()[..width].to_vec()
            };
            overwrite(input, at, &bytes);
        }
        5 => {
            input.drain(at..end);
        }
        6 => {
            let bytes: Vec<u8> = (0..length).map(|_| random.byte()).collect();
            input.splice(at..at, bytes);
        }
        7 => {
            let piece = input[at..end].to_vec();
            let reach = if random.below(16) == 0 { 256 } else { 3 };
            let times = 1 + random.below(reach);
            input.splice(at..at, piece.repeat(times));
        }
        8 => {
            let piece = input[at..end].to_vec();
            let to = random.below(input.len() + 1);
            overwrite(input, to, &piece);
        }
        9 | 10 => {
            if let Some(word) = random.pick(words) {
                if random.below(2) == 0 {
                    overwrite(input, at, word);
                } else {
                    input.splice(at..at, word.iter().copied());
                }
            }
        }
        11 | 12 => {
            if let Some(other) = random.pick(others) {
                let from = random.below(other.len() + 1);
                let to = (from + 1 + random.below(128)).min(other.len());
                if random.below(2) == 0 {
                    overwrite(input, at, &other[from..to]);
                } else {
                    input.splice(at..at, other[from..to].iter().copied());
                }
            }
        }
        _ => input.truncate(at),
    }
}

fn overwrite(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        match input.get_mut(at + i) {
            Some(place) => *place = *byte,
            None => input.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs() {
        let make = |seed| {
            let mut random = Random::new(seed);
            let others = [b"one".to_vec(), b"two".to_vec()];
            let mut all = Vec::new();
            let mut input = b"begin".to_vec();
            for _ in 0..1_000 {
                mutate(&mut input, &mut random, &others, &[b"word".to_vec()], 4_096);
                assert!(input.len() <= 4_096);
                all.push(input.clone());
            }
            all
        };
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }
}
