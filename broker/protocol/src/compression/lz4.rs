//! What of LZ4's frame format Kafka's Java client reads (`Lz4BlockInputStream`): one frame of independent blocks, closed by its end mark.
//!
//! Decoders of other clients read more. A batch that Java cannot read stops every Java consumer and Kafka's own followers at its offset, so it is refused at produce, as Apache Kafka
//! refuses it.

const MAGIC: u32 = 0x184D_2204;
/// A block with this bit in its size is not compressed.
const INCOMPRESSIBLE: u32 = 1 << 31;

/// Whether Java finds its way from the header of the frame to its end mark. What the blocks hold is the decoder's business, and what stands behind the end mark is looked at by nobody.
///
/// # Errors
/// What it stumbles over.
pub(super) fn is_read_by_java(input: &[u8]) -> Result<(), &'static str> {
    const CUT_OFF: &str = "the frame ends without its end mark";
    let (magic, input) = input.split_first_chunk().ok_or(CUT_OFF)?;
    if u32::from_le_bytes(*magic) != MAGIC {
        return Err("this is no LZ4 frame");
    }
    let (&[flags, descriptor], input) = input.split_first_chunk().ok_or(CUT_OFF)?;
    if flags >> 6 != 1 || flags & 0b11 != 0 {
        return Err("its version or a flag is none that Java knows");
    }
    if flags & 1 << 5 == 0 {
        return Err("its blocks depend on one another");
    }
    let size = descriptor >> 4;
    if descriptor & 0b1111 != 0 || !(4..=7).contains(&size) {
        return Err("its block size is none that Java knows");
    }
    let largest = 1_usize << (8 + 2 * size);
    let content_size = if flags & 1 << 3 == 0 { 0 } else { 8 };
    let checksum = if flags & 1 << 4 == 0 { 0 } else { 4 };
    let content_checksum = if flags & 1 << 2 == 0 { 0 } else { 4 };
    // One byte is the checksum of the descriptor.
    let mut rest = input.get(content_size + 1..).ok_or(CUT_OFF)?;
    loop {
        let (block, behind) = rest.split_first_chunk().ok_or(CUT_OFF)?;
        let block = (u32::from_le_bytes(*block) & !INCOMPRESSIBLE) as usize;
        if block == 0 {
            return behind.get(..content_checksum).map(|_| ()).ok_or(CUT_OFF);
        }
        if block > largest {
            return Err("a block is larger than its header says");
        }
        rest = behind.get(block + checksum..).ok_or(CUT_OFF)?;
    }
}
