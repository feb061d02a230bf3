//! Buffers that idle connections do not keep.

use std::cell::RefCell;

use bytes::BytesMut;

/// The most that a connection reads before it has room for a frame.
pub(crate) const READ_BUFFER_BYTES: usize = 16 * 1024;

/// The most unused buffers that a thread keeps.
const POOLED_MAX: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Returns an empty buffer, with memory from the pool if possible.
pub(crate) fn take_buffer() -> BytesMut {
    POOL.with_borrow_mut(|pool| pool.pop().unwrap_or_default())
}

/// Returns an empty buffer to the pool.
pub(crate) fn give_buffer(buffer: BytesMut) {
    if buffer.is_empty() && (1..=READ_BUFFER_BYTES).contains(&buffer.capacity()) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOLED_MAX {
                pool.push(buffer);
            }
        });
    }
}
