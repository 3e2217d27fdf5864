//! Making inputs from samples: a script of random bytes chooses a sample and
//! edits it.

/// Most edits of one sample: few, so that most of its structure is left.
const MAX_EDITS: u8 = 6;
/// Longest input.
const MAX_INPUT: usize = 1 << 17;

/// What a script makes of the samples. One script in eight is an input by
/// itself.
#[must_use]
pub fn edited(samples: &[Vec<u8>], script: &[u8]) -> Vec<u8> {
    let mut script = Script(script);
    if samples.is_empty() || script.byte() < 32 {
        return script.0.to_vec();
    }
    let mut input = samples[script.below(samples.len())].clone();
    for _ in 0..=script.byte() % MAX_EDITS {
        edit(&mut input, samples, &mut script);
        input.truncate(MAX_INPUT);
    }
    input
}

fn edit(input: &mut Vec<u8>, samples: &[Vec<u8>], script: &mut Script<'_>) {
    let at = script.below(input.len() + 1);
    let to = (at + 1 + script.below(16)).min(input.len());
    match script.byte() % 10 {
        0 if at < input.len() => input[at] ^= 1 << (script.byte() % 8),
        1 if at < input.len() => input[at] = script.byte(),
        2 => drop(input.drain(at..to)),
        3 => input.insert(at, script.byte()),
        4 => {
            // A part twice: repeated fields, repeated headers.
            let part = input[at..to].to_vec();
            input.splice(at..at, part);
        }
        5 => input.truncate(at),
        6 => {
            // The end of another sample behind the beginning of this one.
            let other = &samples[script.below(samples.len())];
            let from = script.below(other.len() + 1);
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        7 => {
            let value = INTERESTING[script.below(INTERESTING.len())];
            input.splice(at..to, value.iter().copied());
        }
        8 => {
            let bytes = script.some();
            input.splice(at..at, bytes.iter().copied());
        }
        _ => {
            // A number off by one where lengths stand.
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(if script.byte().is_multiple_of(2) {
                    1
                } else {
                    255
                });
            }
        }
    }
}

/// What parsers stumble over.
const INTERESTING: [&[u8]; 24] = [
    b"\0",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\x7f\xff",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"-1",
    b"18446744073709551616",
    b"ffffffffffffffff",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a.test\r\n",
    b"\"",
    b"[",
    b"\xc3\x28",
];

/// Random bytes that never end: zeros follow the last.
struct Script<'s>(&'s [u8]);

impl<'s> Script<'s> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: usize) -> usize {
        let wide = u32::from_be_bytes([0, self.byte(), self.byte(), self.byte()]);
        wide as usize % limit
    }

    fn some(&mut self) -> &'s [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (some, rest) = self.0.split_at(length);
        self.0 = rest;
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_make_many_different_inputs_near_the_samples() {
        let samples = vec![
            b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
            vec![7; 40],
        ];
        let mut seen = std::collections::HashSet::new();
        let mut near = 0;
        for seed in 0..2000u32 {
            let script: Vec<u8> = (0..64)
                .map(|i: u32| (seed.wrapping_mul(2_654_435_761).wrapping_add(i * 97) >> 13) as u8)
                .collect();
            let input = edited(&samples, &script);
            near += u32::from(input.starts_with(b"GET") || input.starts_with(&[7; 3]));
            seen.insert(input);
        }
        assert!(seen.len() > 500, "{}", seen.len());
        assert!(near > 700, "{near}");
    }

    #[test]
    fn an_empty_script_or_corpus_makes_an_input_all_the_same() {
        assert_eq!(edited(&[], &[]), Vec::<u8>::new());
        assert_eq!(edited(&[b"x".to_vec()], &[]), Vec::<u8>::new());
        assert_eq!(edited(&[b"x".to_vec()], &[3, 1, 2]), [1, 2]);
    }
}
