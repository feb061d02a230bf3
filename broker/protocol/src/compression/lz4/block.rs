//! How a compressed block ends: liblz4 and lz4-java refuse what ends otherwise
//! (`LZ4_decompress_safe`), our decoder does not.
//!
//! A block is a row of sequences: a token, literals, and a match with what came before. The last
//! has literals alone, five or more. To find it means to read all tokens, which costs nearly half
//! of what decompressing does. So the last bytes say first whether a block may end badly: hardly
//! any does.

/// A block ends with literals (`LASTLITERALS`): behind the literals of a sequence with a match come
/// at least its offset, the next token and these, ...
const BEHIND_LITERALS_MIN: usize = OFFSET_BYTES + 1 + LAST_LITERALS;
const LAST_LITERALS: usize = 5;
const OFFSET_BYTES: usize = 2;
/// ... and a match begins at least so many bytes before the end of what the block may give
/// (`MFLIMIT`).
const BEHIND_MATCH_START_MIN: usize = 12;
/// What a match gives where its token says 0.
const MATCH_MIN: usize = 4;
/// The largest number in a half of a token: more bytes follow it, all of them 255 but the last.
const TOKEN_MAX: usize = 15;

/// Whether a block that gave `output`, and might have given `largest` bytes, ends as the block
/// format demands. That its matches lie in the block the decoder has seen to.
pub(super) fn ends_well(input: &[u8], output: &[u8], largest: usize) -> bool {
    !is_in_doubt(input, output, largest) || is_decompressed_by_java(input, largest).is_some()
}

/// False when the block ends well. It takes every byte that could be the last token for one, and
/// looks whether what would be before it explains what was given. By chance it seldom does.
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

/// What would be before the last token, and what was given up to there, if the last sequence had so
/// many literals; `None` when it has not.
fn last_match<'a>(
    literals: usize,
    input: &'a [u8],
    output: &'a [u8],
) -> Option<(&'a [u8], &'a [u8])> {
    let (before, behind) = input.split_at_checked(input.len().checked_sub(literals + 1)?)?;
    let is_token = usize::from(behind.first()? >> 4) == literals;
    is_token.then_some((before, output.get(..output.len().checked_sub(literals)?)?))
}

/// Whether a match of any length may be the last that was given. Between its offset and the last
/// token are bytes of its length, or none.
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

/// Whether a match may be the last that was given that is so short that it begins too late before
/// so many literals: with the literals before it, and their token.
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

/// Whether the last `length` bytes that were given are those that the offset at the end of `before`
/// leads to.
fn repeats(before: &[u8], given: &[u8], length: usize) -> bool {
    let Some((_, offset)) = before.split_last_chunk::<OFFSET_BYTES>() else {
        return false;
    };
    let offset = usize::from(u16::from_le_bytes(*offset));
    let from = given.len().checked_sub(length).and_then(|begin| begin.checked_sub(offset));
    let matched = from.and_then(|from| given.get(from..from + length));
    offset > 0 && matched.is_some_and(|matched| given.ends_with(matched))
}

/// Reads all tokens; `None` when the block does not end as it must.
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

/// A length of which a token has the beginning.
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

    /// Literals, and an offset with a match's length.
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

    /// What `LZ4SafeDecompressor` of lz4-java 1.10.2 says of the same blocks.
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
        // Without room behind it the block has to keep to more.
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
