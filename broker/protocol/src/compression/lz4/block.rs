//! The end of a compressed block: liblz4 and lz4-java refuse blocks that end otherwise
//! (`LZ4_decompress_safe`), and our decoder does not.
//!
//! A block is a list of sequences: a token, literals, and a match with earlier output. The last
//! sequence has only literals, five or more. To find it, a reader must parse all tokens, which
//! costs nearly half as much as decompressing. So a cheaper check of the last bytes first decides
//! whether a block may end badly, which is rare.

/// A block ends with literals (`LASTLITERALS`). After the literals of a sequence with a match come
/// at least its offset, the next token and those last literals, ...
const BEHIND_LITERALS_MIN: usize = OFFSET_BYTES + 1 + LAST_LITERALS;
const LAST_LITERALS: usize = 5;
const OFFSET_BYTES: usize = 2;
/// ... and a match starts at least this many bytes before the end of the largest output that the
/// block may have (`MFLIMIT`).
const BEHIND_MATCH_START_MIN: usize = 12;
/// The length of a match whose token says 0.
const MATCH_MIN: usize = 4;
/// The largest value in half a token. More bytes of the length follow it: 255 each, except the
/// last.
const TOKEN_MAX: usize = 15;

/// Whether a block ends as the block format demands, given its `output` and the `largest` output
/// that it may have. The decoder has checked already that its matches stay in the block.
pub(super) fn ends_well(input: &[u8], output: &[u8], largest: usize) -> bool {
    !is_in_doubt(input, output, largest) || is_decompressed_by_java(input, largest).is_some()
}

/// False only when the block ends well. It tries every byte that could be the last token, and
/// checks whether a match before it explains the output. Wrong guesses seldom do.
fn is_in_doubt(input: &[u8], output: &[u8], largest: usize) -> bool {
    let is_full = output.len() + BEHIND_MATCH_START_MIN > largest;
    (0..LAST_LITERALS).any(|literals| {
        last_match(literals, input, output).is_some_and(|(before, given)| is_match(before, given))
    }) || is_full
        && (LAST_LITERALS..BEHIND_MATCH_START_MIN - MATCH_MIN).any(|literals| {
            last_match(literals, input, output)
                .is_some_and(|(before, given)| is_late_match(before, given, literals))
        })
}

/// The input before the last token and the output up to there, if the last sequence had this many
/// literals; `None` if it has not.
fn last_match<'a>(
    literals: usize,
    input: &'a [u8],
    output: &'a [u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let (before, behind) = input.split_at_checked(input.len().checked_sub(literals + 1)?)?;
    let is_token = usize::from(behind.first()? >> 4) == literals;
    is_token.then_some((before, output.get(..output.len().checked_sub(literals)?)?))
}

/// Whether a match of any length may be the last one. Between its offset and the last token lie the
/// bytes of its length, if any.
fn is_match(mut before: &[u8], given: &[u8]) -> bool {
    let mut is_last = true;
    loop {
        if repeats(before, given, MATCH_MIN) {
            return true;
        }
        match before.split_last() {
            Some((byte, rest)) if is_last || *byte == u8::MAX => before = rest,
            _ => return false,
        }
        is_last = false;
    }
}

/// Whether the last match may be so short that it starts too late before this many literals. It
/// checks the literals before that match, and their token, as well.
fn is_late_match(before: &[u8], given: &[u8], literals: usize) -> bool {
    (MATCH_MIN..BEHIND_MATCH_START_MIN.saturating_sub(literals)).any(|length| {
        let before = before
            .get(..before.len().saturating_sub(OFFSET_BYTES))
            .filter(|_| repeats(before, given, length));
        let given = given.get(..given.len().saturating_sub(length));
        before.zip(given).is_some_and(|(before, given)| {
            (0..=TOKEN_MAX.min(given.len())).any(|count| {
                let (rest, own) = before.split_at(before.len().saturating_sub(count));
                let token = count << 4 | (length - MATCH_MIN);
                given.ends_with(own)
                    && (count == TOKEN_MAX
                        || rest.last().is_some_and(|byte| usize::from(*byte) == token))
            })
        })
    })
}

/// Whether the last `length` bytes of the output are those that the offset at the end of `before`
/// refers to.
fn repeats(before: &[u8], given: &[u8], length: usize) -> bool {
    let Some((_, offset)) = before.split_last_chunk::<OFFSET_BYTES>() else {
        return false;
    };
    let offset = usize::from(u16::from_le_bytes(*offset));
    let from = given.len().checked_sub(length).and_then(|begin| begin.checked_sub(offset));
    let matched = from.and_then(|from| given.get(from..from + length));
    offset > 0 && matched.is_some_and(|matched| given.ends_with(matched))
}

/// Parses all tokens; `None` when the block does not end as it must.
fn is_decompressed_by_java(mut input: &[u8], largest: usize) -> Option<()> {
    let mut given = 0_usize;
    loop {
        let token = usize::from(*input.split_off_first()?);
        let literals = length(token >> 4, &mut input)?;
        input = input.get(literals..)?;
        given = given.checked_add(literals)?;
        if input.is_empty() {
            return Some(());
        }
        if input.len() < BEHIND_LITERALS_MIN || given + BEHIND_MATCH_START_MIN > largest {
            return None;
        }
        input = input.get(OFFSET_BYTES..)?;
        given =
            given.checked_add(length(token & TOKEN_MAX, &mut input)?)?.checked_add(MATCH_MIN)?;
        if given + LAST_LITERALS > largest {
            return None;
        }
    }
}

/// Reads the rest of a length that begins in a token.
fn length(begun: usize, input: &mut &[u8]) -> Option<usize> {
    let mut length = begun;
    if begun == TOKEN_MAX {
        loop {
            let byte = *input.split_off_first()?;
            length = length.checked_add(usize::from(byte))?;
            if byte != u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Literals, and the offset and length of a match.
    type Sequence<'a> = (&'a [u8], Option<(u16, usize)>);

    fn block(sequences: &[Sequence<'_>]) -> Vec<u8> {
        fn more(length: usize, block: &mut Vec<u8>) {
            if let Some(mut rest) = length.checked_sub(TOKEN_MAX) {
                while let Some(less) = rest.checked_sub(255) {
                    block.push(255);
                    rest = less;
                }
                block.push(rest as u8);
            }
        }
        let mut block = Vec::new();
        for (literals, matched) in sequences {
            let matched_more = matched.map_or(0, |(_, length)| length - MATCH_MIN);
            block.push((literals.len().min(TOKEN_MAX) << 4 | matched_more.min(TOKEN_MAX)) as u8);
            more(literals.len(), &mut block);
            block.extend_from_slice(literals);
            if let Some((offset, _)) = matched {
                block.extend_from_slice(&offset.to_le_bytes());
                more(matched_more, &mut block);
            }
        }
        block
    }

    fn judged(block: &[u8], spare: usize) -> bool {
        let mut output = vec![0; 1 << 16];
        let given = lz4_flex::block::decompress_into(block, &mut output).unwrap();
        ends_well(block, &output[..given], given + spare)
    }

    /// The expected values are the verdicts of `LZ4SafeDecompressor` of lz4-java 1.10.2 on the same
    /// blocks.
    #[test]
    fn blocks_end_as_java_reads_them() {
        for (literals, length, expected) in [
            (0, 10, false),
            (3, 10, false),
            (4, 10, false),
            (5, 10, true),
            (0, 100, false),
            (3, 100, false),
            (4, 100, true),
            (5, 100, true),
            (3, 400, true),
        ] {
            let block = block(&[(b"abc", Some((1, length))), (&b"defghij"[..literals], None)]);
            assert_eq!(
                judged(&block, 100),
                expected,
                "{literals} literals behind a match of {length}"
            );
        }
        // Without spare room after the output, the block must keep a stricter rule.
        for (literals, length, spare, expected) in [
            (5, 4, 0, false),
            (5, 6, 0, false),
            (5, 7, 0, true),
            (6, 5, 0, false),
            (7, 4, 0, false),
            (8, 4, 0, true),
            (5, 4, 3, true),
            (4, 100, 0, false),
            (4, 100, 1, true),
            (3, 400, 1, false),
            (3, 400, 2, true),
        ] {
            let block =
                block(&[(b"abcdefghijkl", Some((1, length))), (&b"mnopqrstuv"[..literals], None)]);
            assert_eq!(
                judged(&block, spare),
                expected,
                "{literals} literals behind a match of {length}, {spare} to spare"
            );
        }
        for literals in 0..20 {
            assert!(
                judged(&block(&[(&[b'a'; 20][..literals], None)]), 0),
                "{literals} literals alone"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_not_in_doubt_ends_well(
            sequences in proptest::collection::vec((proptest::collection::vec(0..3_u8, 0..18), 1..40_u16, 4..300_usize), 0..6),
            last in proptest::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..18),
            spare in 0..14_usize,
        ) {
            let mut all: Vec<Sequence<'_>> = sequences.iter().map(|(literals, offset, length)| (&literals[..], Some((*offset, *length)))).collect();
            all.push((&last, None));
            let block = block(&all);
            let mut output = vec![0; 1 << 16];
            if let Ok(given) = lz4_flex::block::decompress_into(&block, &mut output) {
                let expected = is_decompressed_by_java(&block, given + spare).is_some();
                prop_assert_eq!(ends_well(&block, &output[..given], given + spare), expected);
            }
        }
    }
}
