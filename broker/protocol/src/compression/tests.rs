use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const LIMIT: usize = 1 << 20;

fn compressed(codec: Codec, input: &[u8]) -> Vec<u8> {
    compress(codec, default_level(codec), input).unwrap().into_owned()
}

#[test]
fn what_is_compressed_comes_back() {
    let long: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 977).to_be_bytes()).collect();
    for codec in CODECS {
        for input in [&[][..], &b"a"[..], &long] {
            assert_eq!(
                decompress(codec, &compressed(codec, input), LIMIT).unwrap(),
                input,
                "{codec:?}"
            );
        }
    }
}

#[test]
fn every_level_that_kafka_allows_works() {
    let input = b"the same again, the same again, the same again";
    for (codec, levels) in
        [(Codec::Gzip, [-1, 1, 9]), (Codec::Lz4, [1, 9, 17]), (Codec::Zstd, [-131_072, 3, 22])]
    {
        for level in levels {
            let bytes = compress(codec, level, input).unwrap();
            assert_eq!(decompress(codec, &bytes, LIMIT).unwrap(), &input[..], "{codec:?} {level}");
        }
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 64 << 20];
    for codec in CODECS {
        let bomb = compressed(codec, &zeros);
        assert_eq!(
            decompress(codec, &bomb, LIMIT),
            Err(CompressionError::TooLarge { limit: LIMIT }),
            "{codec:?}"
        );
    }
}

#[test]
fn the_limit_itself_is_allowed() {
    let input = vec![7; 1000];
    for codec in CODECS {
        let bytes = compressed(codec, &input);
        assert!(decompress(codec, &bytes, 1000).is_ok(), "{codec:?}");
        assert_eq!(
            decompress(codec, &bytes, 999),
            Err(CompressionError::TooLarge { limit: 999 }),
            "{codec:?}"
        );
    }
}

#[test]
fn snappy_is_read_raw_and_framed_and_its_claims_are_checked() {
    let input = vec![1; 100_000];
    let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    assert_eq!(decompress(Codec::Snappy, &raw, LIMIT).unwrap(), input);
    assert!(
        compressed(Codec::Snappy, &input)
            .starts_with(&[0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1])
    );
    // Five bytes that claim 4 GiB, and three that claim 1 MiB.
    assert_eq!(
        decompress(Codec::Snappy, &[0xff, 0xff, 0xff, 0xff, 0x0f], LIMIT),
        Err(CompressionError::TooLarge { limit: LIMIT })
    );
    assert!(matches!(
        decompress(Codec::Snappy, &[0x80, 0x80, 0x40], LIMIT),
        Err(CompressionError::Corrupt { .. })
    ));
}

/// A section of the log is read as far as the decoder can. A section from a client must be readable
/// for Java (`Lz4BlockInputStream` of Apache Kafka 4.3.1).
#[test]
fn lz4_frames_are_taken_as_java_takes_them() {
    let input: Vec<u8> = (0..300_000_u32).map(|n| (n / 7 % 251) as u8).collect();
    let frame = |info: FrameInfo| {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&input).unwrap();
        encoder.finish().unwrap()
    };
    let refused = |frame: &[u8]| match piecewise(Codec::Lz4, frame) {
        Err(CompressionError::Corrupt { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(mut reader) => {
            let mut output = Vec::new();
            reader.read_to_end(&mut output).unwrap();
            assert_eq!(output, input);
            "taken".to_owned()
        }
    };
    let independent = || FrameInfo::new().block_mode(BlockMode::Independent);
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        let plain = independent().block_size(size);
        let checked = independent().block_size(size).block_checksums(true).content_checksum(true);
        let sized = independent().block_size(size).content_size(Some(input.len() as u64));
        for info in [plain, checked, sized] {
            let frame = frame(info);
            assert_eq!(refused(&frame), "taken");
            // The end mark has four bytes, and so has the checksum of the content.
            for cut in [1, 4, 100] {
                assert_eq!(
                    refused(&frame[..frame.len() - cut]),
                    "the frame ends without its end mark"
                );
            }
        }
    }
    let linked = frame(
        FrameInfo::new()
            .block_size(BlockSize::Max64KB)
            .block_mode(BlockMode::Linked)
            .content_checksum(true),
    );
    assert_eq!(refused(&linked), "its blocks depend on one another");
    assert_eq!(decompress(Codec::Lz4, &linked, LIMIT).unwrap(), input);
    let with = |at: usize, byte: u8| {
        let mut frame = frame(independent().block_size(BlockSize::Max64KB));
        frame[at] = byte;
        refused(&frame)
    };
    assert_eq!(with(0, 0x02), "this is no LZ4 frame");
    for flags in [0x20, 0xa0, 0x61, 0x62] {
        assert_eq!(with(4, flags), "its version or a flag is none that Java knows");
    }
    for descriptor in [0x30, 0x41, 0x80, 0xc0] {
        assert_eq!(with(5, descriptor), "its block size is none that Java knows");
    }
    assert_eq!(with(9, 0x02), "a block is larger than its header says");
    assert_eq!(refused(&[]), "the frame ends without its end mark");
}

/// A frame of these blocks: uncompressed bytes, or a compressed block without output.
fn lz4_frame(blocks: &[&[u8]]) -> Vec<u8> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(b"any").unwrap();
    let mut frame = encoder.finish().unwrap();
    frame.truncate(7);
    for block in blocks {
        match u32::try_from(block.len()).unwrap() {
            0 => frame.extend_from_slice(&[1, 0, 0, 0, 0]),
            size => {
                frame.extend_from_slice(&(size | 1 << 31).to_le_bytes());
                frame.extend_from_slice(block);
            }
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame
}

/// `Lz4BlockInputStream` reads one frame and ends at a block that gives no bytes. Reading at once
/// and reading in pieces must agree.
#[test]
fn an_lz4_frame_is_over_where_it_is_for_java() {
    let two_frames = [lz4_frame(&[b"one"]), lz4_frame(&[b"two"])].concat();
    let garbage = [&lz4_frame(&[b"one"])[..], b"garbage"].concat();
    let mut early_end = lz4_frame(&[b"one", b"two"]);
    early_end.splice(14..14, [0, 0, 0, 0x80]);
    for (why, input, expected) in [
        ("two blocks", lz4_frame(&[b"one", b"two"]), "onetwo"),
        ("two frames", two_frames, "one"),
        ("garbage behind the frame", garbage, "one"),
        ("an empty block between", lz4_frame(&[b"one", b"", b"two"]), "one"),
        ("an empty block first", lz4_frame(&[b"", b"one"]), ""),
        ("an empty block last", lz4_frame(&[b"one", b""]), "one"),
        ("an end mark that is not compressed", early_end, "one"),
    ] {
        assert_eq!(decompress(Codec::Lz4, &input, LIMIT).unwrap(), expected.as_bytes(), "{why}");
        let mut reader = piecewise(Codec::Lz4, &input).unwrap();
        let mut seen = Vec::new();
        // A reader may read again at the end.
        for _ in 0..3 {
            reader.read_to_end(&mut seen).unwrap();
        }
        assert_eq!(seen, expected.as_bytes(), "{why}");
    }
}

#[test]
fn an_lz4_block_that_java_cannot_read_is_refused_and_read_where_it_lies_in_a_log() {
    // Ten literals, a match of four bytes, and no literals after it.
    let block = [&[0xa0][..], b"0123456789", &[4, 0, 0]].concat();
    let mut frame = lz4_frame(&[]);
    frame.splice(7..7, [&[14, 0, 0, 0][..], &block].concat());
    assert_eq!(decompress(Codec::Lz4, &frame, LIMIT).unwrap(), &b"01234567896789"[..]);
    let mut reader = piecewise(Codec::Lz4, &frame).unwrap();
    let refusal = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(refusal.to_string(), "a block does not end as LZ4's blocks do");
}

/// `SnappyInputStream` checks the version of every header but the first, and ends when fewer than
/// four bytes remain.
#[test]
fn snappy_is_framed_as_java_reads_it() {
    let block = |bytes: &[u8]| {
        let block = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
        [&u32::try_from(block.len()).unwrap().to_be_bytes()[..], &block].concat()
    };
    let header = |version: i32, compatible: i32| {
        [&b"\x82SNAPPY\0"[..], &version.to_be_bytes(), &compatible.to_be_bytes()].concat()
    };
    let (one, two) = (block(b"one"), block(b"two"));
    let read = |parts: &[&[u8]]| {
        let input = parts.concat();
        let whole = decompress(Codec::Snappy, &input, LIMIT).map(Cow::into_owned);
        let mut seen = Vec::new();
        let is_read = piecewise(Codec::Snappy, &input).unwrap().read_to_end(&mut seen).is_ok();
        assert_eq!(is_read, whole.is_ok());
        assert!(!is_read || whole.as_ref() == Ok(&seen));
        whole.ok().map(|bytes| String::from_utf8(bytes).unwrap())
    };
    for (version, compatible) in [(1, 1), (0, 1), (1, 0), (-1, -1), (9, 9)] {
        let other = header(version, compatible);
        assert_eq!(
            read(&[&other, &one, &two]).as_deref(),
            Some("onetwo"),
            "{version} {compatible} first"
        );
        let expected = (version >= 1).then_some("onetwo");
        assert_eq!(
            read(&[&header(1, 1), &one, &other, &two]).as_deref(),
            expected,
            "{version} {compatible} second"
        );
    }
    for bytes in 1..=3 {
        assert_eq!(
            read(&[&header(1, 1), &one, &[0; 3][..bytes]]).as_deref(),
            Some("one"),
            "{bytes} bytes behind"
        );
    }
    assert_eq!(read(&[&header(1, 1), &one, &[0; 4]]), None, "a block of no bytes");
    assert_eq!(read(&[&header(1, 1), &one, &header(1, 1)[..12]]), None, "half a header");
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // Magic, a descriptor without content size, and a window descriptor of 2^31 bytes.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    assert!(matches!(
        decompress(Codec::Zstd, &frame, LIMIT),
        Err(CompressionError::Corrupt { .. })
    ));
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic_and_stay_below_the_limit(
        input in proptest::collection::vec(any::<u8>(), 0..2000), at in any::<prop::sample::Index>(), flip in 1_u8.., cut in any::<prop::sample::Index>(),
    ) {
        for codec in CODECS {
            let mut bytes = compressed(codec, &input);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            if let Ok(output) = decompress(codec, &bytes, 4096) {
                prop_assert!(output.len() <= 4096);
            }
        }
    }
}
