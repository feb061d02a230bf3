//! The most bytes that a response takes once it is encoded. They are known before encoding, so that
//! the caller can reserve memory.

use bytes::Bytes;
use uuid::Uuid;

/// The most bytes of the length of a byte string, an array or a string, in either form.
const LENGTH_BYTES_MAX: usize = 5;

/// A value that can bound its encoded size.
pub trait Measured {
    /// The most bytes that it takes in any version. It counts fields that some versions leave out.
    fn encoded_bytes_max(&self) -> usize;
}

macro_rules! as_in_memory {
    ($($type:ty),*) => {$(
        impl Measured for $type {
            fn encoded_bytes_max(&self) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

as_in_memory!(bool, i8, i16, i32, i64, u16, u32, f64, Uuid);

macro_rules! with_a_length {
    ($($type:ty),*) => {$(
        impl Measured for $type {
            fn encoded_bytes_max(&self) -> usize {
                LENGTH_BYTES_MAX + self.len()
            }
        }
    )*};
}

with_a_length!(&str, String, Bytes);

impl<T: Measured> Measured for Vec<T> {
    fn encoded_bytes_max(&self) -> usize {
        LENGTH_BYTES_MAX + self.iter().map(T::encoded_bytes_max).sum::<usize>()
    }
}

/// Null takes a length, or one byte in place of a struct. A nullable struct has that byte before
/// it.
impl<T: Measured> Measured for Option<T> {
    fn encoded_bytes_max(&self) -> usize {
        self.as_ref().map_or(LENGTH_BYTES_MAX, |inner| 1 + inner.encoded_bytes_max())
    }
}
